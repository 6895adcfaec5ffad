import warnings

import pytest
import torch

from lit_mbldm.data.loading.indexed import IndexedStream
from lit_mbldm.data.loading.loader import EpochLoader


class Numbers(IndexedStream):
    """The samples' numbers."""

    def batch(self, places: range) -> dict:
        return {"index": torch.tensor(places)}


def loader(batch_size: int, world_size: int = 1, moved: list[int] | None = None, crops: int = 48):
    stream = Numbers("numbers", crops, batch_size, 0, world_size)
    return EpochLoader(stream, lambda: 0, move=[].append if moved is None else moved.append)


def after(batches: int, batch_size: int = 4, world_size: int = 1) -> dict:
    stopped = loader(batch_size, world_size)
    iterator = iter(stopped)
    for _ in range(batches):
        next(iterator)
    return stopped.state_dict()


def first_number(resumed: EpochLoader) -> int:
    return next(iter(resumed))["index"][0].item()


def test_it_continues_after_the_last_batch() -> None:
    moved: list[int] = []
    resumed = loader(4, moved=moved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.load_state_dict(after(5))
    assert [b["index"][0].item() for b in resumed] == list(range(20, 48, 4))
    assert len(list(resumed)) == 12
    assert not moved


@pytest.mark.parametrize(
    ("batch_size", "world_size", "batch"), [(2, 2, 5), (2, 1, 10), (8, 1, 2), (4, 2, 2)]
)
def test_other_numbers_of_processes_continue_at_the_same_sample(
    batch_size, world_size, batch
) -> None:
    moved: list[int] = []
    resumed = loader(batch_size, world_size, moved)
    resumed.load_state_dict(after(5))
    assert moved == ([] if batch_size * world_size == 4 else [batch])
    assert first_number(resumed) == batch * batch_size * world_size <= 20


def test_a_finished_epoch_stays_finished() -> None:
    moved: list[int] = []
    resumed = loader(2, 1, moved)
    resumed.load_state_dict(after(12))
    assert moved == [24]


def test_another_order_starts_the_epoch_again_and_says_so() -> None:
    moved: list[int] = []
    resumed = loader(4, 1, moved, crops=40)
    with pytest.warns(
        UserWarning, match="starts epoch 0 again, of which 20 samples were done: data changed"
    ):
        resumed.load_state_dict(after(5))
    assert moved == [0]
    assert first_number(resumed) == 0
