"""The demo's task: which of seven shoulder exercises is a smartwatch's wearer doing? Two seconds of motion tell.

Written as any user of FedMQ would write theirs.
"""

from torch import nn

from fedmq import Data
from fedmq.demo.watch import CHANNELS, EXERCISES, split


def build_model() -> nn.Module:
    """A small convolutional network over time: 27,495 weights, 110 kB, one MQTT message."""
    return nn.Sequential(
        nn.Conv1d(CHANNELS, 48, 9, stride=4, padding=4), nn.GroupNorm(4, 48), nn.ReLU(),
        nn.Conv1d(48, 56, 9, stride=2, padding=4), nn.GroupNorm(4, 56), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(56, len(EXERCISES)),
    )  # fmt: skip


def load_data(client_id: str) -> Data:
    """The wearer's windows to train on, and later ones to test on."""
    mine = split(client_id)
    return Data(train=mine.train, test=mine.validation)
