"""The mean loss at early, middle and late times."""

from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

_BUCKETS = 10


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


class LossByTime(nn.ModuleList):
    """Mean losses in ten equal ranges of t/T."""

    def __init__(self) -> None:
        super().__init__(MaskedMean() for _ in range(_BUCKETS))

    def update(self, losses: Tensor, time: Tensor) -> None:
        """Take in losses (B,) at times t/T (B,) in (0, 1]."""
        bucket = (time * _BUCKETS).ceil().long() - 1  # (B,)
        for number, mean in enumerate(self._means()):
            mean.update(losses.detach(), bucket == number)

    def sums(self) -> Tensor:
        """What each of the ten means has taken in: (10, 2) float64 on the CPU, total and count."""
        sums = [[mean.total.item(), mean.count.item()] for mean in self._means()]
        return torch.tensor(sums, dtype=torch.float64)

    def restore(self, sums: Tensor) -> None:
        """Go on from the `sums` of a run that ended in the middle of an epoch."""
        for mean, (total, count) in zip(self._means(), sums, strict=True):
            mean.total, mean.count = total.to(mean.total), count.to(mean.count)

    def metrics(self, prefix: str) -> dict[str, Metric]:
        """The ten metrics by the names they are logged under, such as `prefix/0.0-0.1`."""
        means = enumerate(self._means())
        return {f"{prefix}/{i / 10:.1f}-{(i + 1) / 10:.1f}": mean for i, mean in means}

    def _means(self) -> list[MaskedMean]:
        return cast(list[MaskedMean], list(self))
