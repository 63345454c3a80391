"""Softmax regression on scikit-learn's digits in plain numpy, for hostile_client.py: a device that costs nothing.

Which device it is stands in the environment, as DEVICE, a number from 0; there are DEVICES of them.
"""

import os

import numpy as np
from sklearn.datasets import load_digits

from fedmq import Trained

task_version = "digits"
ALPHA = 1.0

_pixels, _digits = load_digits(return_X_y=True)
_pixels = (_pixels / 16).astype(np.float32)
_test = np.arange(len(_digits)) % 5 == 0


def accuracy(weights):
    """On the fifth of the digits that no device has."""
    scores = _pixels[_test] @ weights["w"] + weights["b"]
    return float((scores.argmax(axis=1) == _digits[_test]).mean())


def _mine():
    draw = np.random.default_rng(0)
    owner = np.full(len(_digits), -1)
    devices = int(os.environ["DEVICES"])
    for digit in range(10):
        places = np.flatnonzero((_digits == digit) & ~_test)
        owner[places] = draw.choice(devices, len(places), p=draw.dirichlet([ALPHA] * devices))
    mine = owner == int(os.environ["DEVICE"])
    return _pixels[mine], _digits[mine]


def train_numpy(weights, plan):
    x, y = _mine()
    w, b = weights["w"], weights["b"]
    draw = np.random.default_rng()
    for _ in range(plan.local_epochs):
        order = draw.permutation(len(y))
        for start in range(0, len(y), plan.batch_size):
            batch = order[start : start + plan.batch_size]
            scores = x[batch] @ w + b
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            odds[np.arange(len(batch)), y[batch]] -= 1
            w -= plan.learning_rate / len(batch) * (x[batch].T @ odds)
            b -= plan.learning_rate / len(batch) * odds.sum(axis=0)
    return Trained({"w": w, "b": b}, len(y))
