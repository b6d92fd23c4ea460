"""Samples are dealt the same way however a run is executed."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from zoo.data.images import Digits, ImageArray
from zoo.data.loading import EpochIndex, EpochSampler, eval_loader, sample_generator, train_loader
from zoo.errors import ConfigError


def process(rank: int, world_size: int) -> Any:
    """What a loader needs to know of a trainer."""
    return SimpleNamespace(global_rank=rank, world_size=world_size)


@given(
    length=st.integers(1, 60),
    world_size=st.integers(1, 4),
    share=st.integers(1, 7),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_processes_together_see_the_batches_of_one(
    length: int, world_size: int, share: int, seed: int, epoch: int
) -> None:
    batch_size = share * world_size
    dataset = TensorDataset(torch.arange(length))

    def batches(rank: int, processes: int) -> list[list[int]]:
        loader = train_loader(dataset, batch_size, process(rank, processes), seed)
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert len(loader) == length // min(batch_size, length - length % processes)
        return [batch[0].tolist() for batch in loader]

    if length < batch_size:
        return  # then one process takes all in one batch, and several what they can share evenly
    alone = batches(0, 1)
    together = [batches(rank, world_size) for rank in range(world_size)]
    for step, whole in enumerate(alone):
        assert sorted(whole) == sorted(index for rank in together for index in rank[step])


@given(length=st.integers(0, 40), world_size=st.integers(1, 5))
def test_evaluation_sees_every_sample_once(length: int, world_size: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        loader = eval_loader(TensorDataset(torch.arange(length)), 8, process(rank, world_size))
        seen += [int(i) for batch in loader for i in batch[0]]
    assert sorted(seen) == list(range(length))


@given(length=st.integers(1, 40), seen=st.integers(0, 40), epoch=st.integers(0, 3))
def test_resumed_sampler_leaves_out_what_was_seen_once(length: int, seen: int, epoch: int) -> None:
    whole, resumed = EpochSampler(length, True, seed=1), EpochSampler(length, True, seed=1)
    resumed.resume(epoch, seen)
    whole.set_epoch(epoch)
    assert list(resumed) == list(whole)[seen:]
    for sampler in (whole, resumed):
        sampler.set_epoch(epoch + 1)
    assert list(resumed) == list(whole)


def test_order_changes_with_epoch_and_seed() -> None:
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        sampler = EpochSampler(50, True, seed)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert len({tuple(order) for order in orders}) == 3


def test_augmentation_depends_on_epoch_and_sample_alone() -> None:
    index = pickle.loads(pickle.dumps(EpochIndex(3, 7)))
    assert (index, index.epoch) == (3, 7)
    draw = sample_generator(0, index).random()
    assert draw == sample_generator(0, EpochIndex(3, 7)).random()
    assert (
        len({draw, *(sample_generator(s, EpochIndex(i, e)).random() for s, i, e in ((1, 3, 7), (0, 4, 7), (0, 3, 8)))})
        == 4
    )


def test_a_batch_that_can_not_be_shared() -> None:
    with pytest.raises(ConfigError, match=r"batch of 5 samples can't be shared by 2 processes: make data\.batch_size"):
        train_loader(TensorDataset(torch.arange(10)), 5, process(0, 2))
    with pytest.raises(ConfigError, match="training set is empty"):
        train_loader(TensorDataset(torch.arange(0)), 5, None)


def test_digits_split_is_fixed_stratified_and_disjoint() -> None:
    splits = []
    for seed in (0, 1):
        data = Digits(seed=seed)
        data.setup("fit")
        splits.append(data)
    one, other = splits
    assert (one.test.images == other.test.images).all()
    assert len(one.train) + len(one.val) == 1437
    assert len(one.test) == 360
    counts = torch.bincount(torch.from_numpy(one.test.labels))
    assert counts.min() >= 34
    assert counts.max() <= 38
    parts = [{image.tobytes() for image in part.images} for part in (one.train, one.val, one.test)]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts))


def test_distortion_keeps_range_and_can_be_off() -> None:
    data = Digits()
    data.setup("fit")
    plain, distorted = ImageArray(data.train.images, data.train.labels), data.train
    assert torch.equal(plain[EpochIndex(0, 0)]["image"], torch.from_numpy(data.train.images[0]))
    first = distorted[EpochIndex(0, 0)]["image"]
    assert not torch.equal(first, distorted[EpochIndex(0, 1)]["image"])
    assert 0 <= first.min() <= first.max() <= 1
    assert first.shape == (1, 8, 8)
