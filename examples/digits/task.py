"""Handwritten digits, 8 x 8 pixels, spread unevenly over devices: a task for `fedmq try`, benchmarks and tests.

The 1,797 digits that scikit-learn carries; every fifth is kept for testing on the aggregator. Which device has how many
of which digit is drawn from a Dirichlet distribution (alpha 0.3): most devices know three or four digits well.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from fedmq import Data

DEVICES = 20
ALPHA = 0.3


def build_model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def load_data(client_id):
    pixels, digits, train, test = _digits()
    owners = _owners(digits[train])
    number = (int(client_id.rsplit("-", 1)[-1]) - 1) % DEVICES
    mine = train[owners == number]
    return Data(train=(pixels[mine], digits[mine]), test=(pixels[test], digits[test]))


def load_test_data():
    pixels, digits, _, test = _digits()
    return pixels[test], digits[test]


def _digits():
    pixels, digits = load_digits(return_X_y=True)
    test = np.arange(len(digits)) % 5 == 0
    x = torch.tensor(pixels / 16, dtype=torch.float32)
    return x, torch.tensor(digits), np.flatnonzero(~test), np.flatnonzero(test)


def _owners(digits):
    """Which device has each training sample; the same on every device, since nobody tells them."""
    draw = np.random.default_rng(0)
    owners = np.empty(len(digits), int)
    for digit in range(10):
        places = np.flatnonzero(digits.numpy() == digit)
        shares = draw.dirichlet([ALPHA] * DEVICES)
        owners[places] = draw.choice(DEVICES, len(places), p=shares)
    return owners
