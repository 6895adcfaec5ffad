"""The mean loss at early, middle and late times."""

import torch
from torch import Tensor

from lit_mbldm.parallel.ranks import gather_rows, sum_ranks

_RANGES = 10


class LossByTime:
    """Mean losses in ten equal ranges of t/T.

    Attributes:
        sums: (10, 2) float32, what this process took in: total and count. No buffer, with which
            averaged weights would change places.
    """

    def __init__(self) -> None:
        # loading builds models with torch.zeros on the device `meta`
        self.sums = torch.tensor([[0.0, 0.0]] * _RANGES)

    def update(self, losses: Tensor, time: Tensor) -> None:
        """Take in losses (B,) at times t/T (B,) in (0, 1]."""
        ranges = torch.arange(1, _RANGES + 1, device=time.device)
        mask = ranges[:, None] == (time * _RANGES).ceil()  # (10, B)
        taken = [torch.where(mask, losses.detach(), 0).sum(1), mask.float().sum(1)]
        self.sums = self.sums.to(losses.device) + torch.stack(taken, dim=1)

    def gathered(self, device: torch.device) -> Tensor:
        """The sums of W processes, (W, 10, 2) on the CPU, for a checkpoint."""
        return gather_rows(self.sums[None], device)

    def restore(self, sums: Tensor, rank: int, world_size: int) -> None:
        """Take over what `gathered` gave; of another number of processes the first takes all."""
        if len(sums) == world_size:
            self.sums = sums[rank].float()
        elif rank == 0:
            self.sums = sums.float().sum(0)

    def pop_means(self, prefix: str, device: torch.device) -> dict[str, Tensor]:
        """The means over all processes by names such as `prefix/0.0-0.1`, and begin anew.

        They are on the device, by which Lightning's log communicates. A mean of nothing is NaN.
        """
        total, count = sum_ranks(self.sums, device).to(device).unbind(1)
        self.sums = torch.zeros(_RANGES, 2)
        means = enumerate(total / count)
        return {f"{prefix}/{i / 10:.1f}-{(i + 1) / 10:.1f}": mean for i, mean in means}
