"""Muon: steps of orthogonal matrices, and of Adam for what is no matrix."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_mbldm.codecs.precision import full_float32

# of the quintic iteration that brings all singular values near 1
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(Optimizer):
    """Muon for weights of two and more dimensions, Adam for the others and for embeddings.

    A convolution counts as the matrix (out, in·kh·kw). Its step has the root mean square that one
    of Adam has, so that both share a learning rate.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scale is that of Liu
    et al. 2025, Muon is scalable for LLM training, equation 4.

    Args:
        module: whose parameters that need gradients are trained.
        lr: learning rate.
        betas: of Adam.
        momentum: of the matrices, as Nesterov's.
        eps: of Adam.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Embedding)]
        rows = {parameter for layer in layers for parameter in layer.parameters()}
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for p in module.parameters():
            if p.requires_grad:
                groups[p.ndim > 1 and p not in rows].append(p)
        options = {"lr": lr, "betas": betas, "momentum": momentum, "eps": eps}
        super().__init__([{"params": ps, "matrices": is_} for is_, ps in groups.items()], options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            update = self._matrix if group["matrices"] else self._adam
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(update(p.grad, self.state[p], group), alpha=group["lr"])
        return loss

    @staticmethod
    def _matrix(grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        direction = orthogonalize(grad.lerp(buffer, group["momentum"]).flatten(1))
        return direction.view_as(grad).mul_(0.2 * max(direction.shape) ** 0.5)

    @staticmethod
    def _adam(grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(grad)}
            state["exp_avg_sq"] = torch.zeros_like(grad)
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        rates = [1 - beta ** state["step"] for beta in group["betas"]]
        mean.lerp_(grad, 1 - group["betas"][0])
        square.lerp_(grad.square(), 1 - group["betas"][1])
        return (mean / rates[0]).div_((square / rates[1]).sqrt_().add_(group["eps"]))


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of a matrix X (m, n) near 1, within about [0.7, 1.2].

    Each step of the iteration is X ← Q X with Q = a + b XXᵀ + c (XXᵀ)². All Q are polynomials of
    the first XXᵀ and commute, so that a step costs products of m×m alone, m ≤ n.
    """
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
    with full_float32(matrix.device):
        x = wide / wide.norm().clamp(min=1e-7)
        gram = x @ x.mT
        product = torch.eye(len(x), device=x.device)
        for _ in range(steps):
            q = _B * gram + _C * gram @ gram
            q.diagonal().add_(_A)
            gram = q @ gram @ q  # of Q X
            product = q @ product
        x = product @ x
    return x if wide is matrix else x.mT
