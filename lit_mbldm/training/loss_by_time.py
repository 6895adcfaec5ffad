"""The mean loss at early, middle and late times."""

from itertools import pairwise

from torch import Tensor, nn
from torchmetrics import MeanMetric

_BUCKETS = 10


class LossByTime(nn.Module):
    """Mean losses in ten equal ranges of t/T."""

    def __init__(self) -> None:
        super().__init__()
        edges = [i / _BUCKETS for i in range(_BUCKETS + 1)]
        self.names = [f"{low:.1f}-{high:.1f}" for low, high in pairwise(edges)]
        self.means = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in self.names)

    def update(self, losses: Tensor, time: Tensor) -> None:
        """Take in losses (B,) at times t/T (B,) in (0, 1]."""
        bucket = (time * _BUCKETS).ceil().long() - 1  # (B,)
        for number, mean in enumerate(self.means):
            # a range that no sample fell into adds zero with weight zero
            mean.update(losses.detach(), (bucket == number).float())  # type: ignore[operator]

    def metrics(self, prefix: str) -> dict[str, MeanMetric]:
        """The ten metrics by the names they are logged under."""
        pairs = zip(self.names, self.means, strict=True)
        return {f"{prefix}/{name}": mean for name, mean in pairs}  # type: ignore[misc]
