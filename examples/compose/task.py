"""Which of four clusters a point belongs to. A client makes points of its own, few of them of some clusters."""

import hashlib

import torch
from torch import Tensor, nn

from fedmq import Data

CENTRES = 1.5 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def build_model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def points(shares: Tensor, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.multinomial(shares, count, replacement=True, generator=random)
    return CENTRES[labels] + torch.randn(count, 8, generator=random), labels


def load_data(client_id: str) -> Data:
    seed = int.from_bytes(hashlib.sha256(client_id.encode()).digest()[:6], "big")
    random = torch.Generator().manual_seed(seed)
    shares = torch.rand(4, generator=random) ** 3 + 0.01
    return Data(train=points(shares, 400, random), test=points(shares, 100, random))


def load_test_data() -> tuple[Tensor, Tensor]:
    return points(torch.ones(4), 2000, torch.Generator().manual_seed(1))
