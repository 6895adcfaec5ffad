"""The mean loss at early, middle and late times."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torchmetrics import Metric

_BUCKETS = 10


class LossByTime(nn.Module):
    """Mean losses in ten equal ranges of t/T."""

    def __init__(self) -> None:
        super().__init__()
        edges = [i / _BUCKETS for i in range(_BUCKETS + 1)]
        self.names = [f"{low:.1f}-{high:.1f}" for low, high in pairwise(edges)]
        self.means = nn.ModuleList(MaskedMean() for _ in self.names)

    def update(self, losses: Tensor, time: Tensor) -> None:
        """Take in losses (B,) at times t/T (B,) in (0, 1]."""
        bucket = (time * _BUCKETS).ceil().long() - 1  # (B,)
        for number, mean in enumerate(self._all()):
            mean.update(losses.detach(), bucket == number)

    def sums(self) -> Tensor:
        """What each of the ten means has taken in: (10, 2) float64 on the CPU, total and count."""
        return torch.tensor(
            [[mean.total.item(), mean.count.item()] for mean in self._all()], dtype=torch.float64
        )

    def restore(self, sums: Tensor) -> None:
        """Go on from the `sums` of a run that ended in the middle of an epoch."""
        for mean, (total, count) in zip(self._all(), sums, strict=True):
            mean.total, mean.count = total.to(mean.total), count.to(mean.count)

    def _all(self) -> "list[MaskedMean]":
        return [mean for mean in self.means if isinstance(mean, MaskedMean)]

    def metrics(self, prefix: str) -> dict[str, Metric]:
        """The ten metrics by the names they are logged under."""
        pairs = zip(self.names, self._all(), strict=True)
        return {f"{prefix}/{name}": mean for name, mean in pairs}


class MaskedMean(Metric):
    """Mean of the values that masks pick, NaN where they picked none.

    torchmetrics' MeanMetric waits for the device at every update, unless its nan_strategy is
    "disable", and then it ignores weights (1.9).
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Tensor, mask: Tensor) -> None:
        """Take in values (B,) where mask (B,) is true."""
        self.total += torch.where(mask, values, 0).sum()
        self.count += mask.sum()

    def compute(self) -> Tensor:
        """The mean of all that was picked."""
        return self.total / self.count
