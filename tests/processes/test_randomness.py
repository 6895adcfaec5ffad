import torch

from lit_mbldm.processes.randomness import SampleStreams


def test_a_sample_s_numbers_do_not_depend_on_its_batch() -> None:
    whole = SampleStreams([(7, i) for i in range(4)])
    part = SampleStreams([(7, 2), (7, 3)])
    for draw in ("normal", "uniform"):
        assert torch.equal(getattr(whole, draw)((3, 5))[2:], getattr(part, draw)((3, 5)))
    assert torch.equal(whole.integers(0, 1000)[2:], part.integers(0, 1000))


def test_other_keys_give_other_numbers() -> None:
    keys = [(0, 1), (1, 0), (0, 0, 1), (0,), (0, 0), (5, 1), (2**32 + 5, 0), (-1, 0)]
    draws = SampleStreams(keys).normal((8,))
    assert len(draws.unique(dim=0)) == len(keys)


def test_moments_over_streams() -> None:
    streams = SampleStreams([(0, i) for i in range(2000)])
    assert abs(streams.normal((10,)).mean()) < 0.03
    assert abs(streams.uniform((10,)).mean() - 0.5) < 0.01
    assert set(streams.integers(1, 4).tolist()) == {1, 2, 3}
