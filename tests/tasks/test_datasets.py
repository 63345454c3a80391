from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from fedmq.schemas.errors import ConfigError
from fedmq.tasks.datasets import as_dataset, batches


class Squares(Dataset[tuple[int, int]]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, index**2


@pytest.mark.parametrize(
    "data",
    [
        (torch.arange(5), torch.arange(5) ** 2),
        (np.arange(5), np.arange(5) ** 2),
        [torch.arange(5), np.arange(5) ** 2],
        Squares(),
        TensorDataset(torch.arange(5), torch.arange(5) ** 2),
    ],
    ids=["tensors", "arrays", "a list of both", "a dataset", "a tensor dataset"],
)
def test_tensors_arrays_and_datasets_are_data(data: Any) -> None:
    dataset = as_dataset(data)
    [(inputs, targets)] = batches(dataset, 10, shuffle=False)
    assert inputs.tolist() == [0, 1, 2, 3, 4]
    assert targets.tolist() == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ((torch.ones(3), torch.ones(2)), "train data of 'dev': 3 inputs and 2 targets, expected as many of each"),
        ((torch.ones(0), torch.ones(0)), "train data of 'dev': it is empty"),
        (7, "train data of 'dev': a int, expected a torch Dataset"),
        (iter([1, 2]), "train data of 'dev': a list_iterator, expected a torch Dataset with a length"),
    ],
)
def test_what_is_no_data_is_named(data: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        as_dataset(data, "train data of 'dev'")


def test_shuffled_batches_hold_every_sample_once_and_follow_their_generator() -> None:
    dataset = as_dataset((torch.arange(40), torch.arange(40)))

    def order(seed: int) -> list[int]:
        loader = batches(dataset, 8, shuffle=True, generator=torch.Generator().manual_seed(seed))
        return [int(sample) for inputs, _ in loader for sample in inputs]

    assert sorted(order(0)) == list(range(40))
    assert order(0) == order(0) != order(1)


def test_a_lone_last_sample_is_left_out_of_training_but_not_of_testing() -> None:
    dataset = as_dataset((torch.arange(9), torch.arange(9)))
    assert [len(inputs) for inputs, _ in batches(dataset, 4, shuffle=True)] == [4, 4]
    assert [len(inputs) for inputs, _ in batches(dataset, 4, shuffle=False)] == [4, 4, 1]
