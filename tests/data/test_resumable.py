import warnings

import pytest
import torch

from lit_mbldm.data.loading.loader import EpochLoader
from lit_mbldm.data.loading.streams import IndexedStream, Share


class Numbers(IndexedStream):
    """The samples' numbers."""

    def batch(self, places: range) -> dict:
        return {"index": torch.tensor(places)}


def resumed_after(
    batches: int, batch_size: int = 4, world_size: int = 1, samples: int = 48
) -> tuple[EpochLoader, list[int]]:
    """A loader that goes on where one of 48 samples in fours stopped, and where that moved to."""
    stopped = EpochLoader(Numbers("numbers", 48, Share(4)), lambda: 0)
    iterator = iter(stopped)
    for _ in range(batches):
        next(iterator)
    moved: list[int] = []
    stream = Numbers("numbers", samples, Share(batch_size, 0, world_size))
    resumed = EpochLoader(stream, lambda: 0, move=moved.append)
    resumed.load_state_dict(stopped.state_dict())
    return resumed, moved


def test_it_continues_after_the_last_batch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed, moved = resumed_after(5)
    assert [b["index"][0].item() for b in resumed] == list(range(20, 48, 4))
    assert len(list(resumed)) == 12
    assert not moved


@pytest.mark.parametrize(
    ("batch_size", "world_size", "batch"), [(2, 2, 5), (2, 1, 10), (8, 1, 2), (4, 2, 2)]
)
def test_other_numbers_of_processes_continue_there(batch_size, world_size, batch) -> None:
    resumed, moved = resumed_after(5, batch_size, world_size)
    assert moved == ([] if batch_size * world_size == 4 else [batch])
    first = next(iter(resumed))["index"][0].item()
    assert first == batch * batch_size * world_size <= 20
    # a finished epoch stays finished
    assert resumed_after(12, batch_size, world_size)[1] in ([], [48 // batch_size // world_size])


def test_another_order_starts_the_epoch_again_and_says_so() -> None:
    message = "starts epoch 0 again, of which 20 samples were done: data changed"
    with pytest.warns(UserWarning, match=message):
        resumed, moved = resumed_after(5, samples=40)
    assert moved == [0]
    assert next(iter(resumed))["index"][0].item() == 0
