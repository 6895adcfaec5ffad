"""What processes share whose network returns logits over the codewords of each code.

B samples, S code channels, K codewords, n channels of z_0 a code, h×w positions, b samples of a
chunk.
"""

from typing import Any

import torch
from torch import Tensor

from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.processes.base import Condition, Denoiser, Prediction, Process, Time
from lit_mbldm.processes.categorical_head import (
    ChunkedHead,
    HeadedDenoiser,
    codeword_nats,
    expectation,
)


class CodewordProcess(Process):
    """A process with a distribution over codewords; its network is read a chunk at a time."""

    values: Tensor  # (K, n): z_0 of each codeword

    def logits(self, head: ChunkedHead, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Logits (b·hw, K) of one code channel of some samples, for z_t (B, S·n, h, w), t (B,)."""
        raise NotImplementedError

    def evidence_logits(self, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Log-likelihoods of z_t for each codeword, but for a constant; as `logits`."""
        raise NotImplementedError

    def code_numbers(self, z0: Tensor) -> Tensor:
        """The codewords' numbers (B, S, h, w) int64 of z_0 (B, S·n, h, w)."""
        raise NotImplementedError

    def predict(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Time,
        self_condition: Tensor | None = None,
        condition: Condition = None,
    ) -> Prediction:
        """Ask the network for logits (B, S, h, w, K) and the expected z_0."""
        K, n = self.values.shape
        B, C, h, w = z_t.shape
        logits = torch.empty(B, C // n, h, w, K, device=z_t.device)
        head = self.run(denoiser, z_t, t, self_condition, condition)
        return Prediction(self._expect(head, z_t, t, logits), logits)

    def estimate(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, condition: Condition = None
    ) -> Tensor:
        """Ask the network for the expected z_0 alone: its logits are not kept."""
        return self._expect(self.run(denoiser, z_t, t, None, condition), z_t, t)

    def run(
        self, denoiser: Any, z_t: Tensor, t: Time, self_condition: Tensor | None, c: Condition
    ) -> ChunkedHead:
        """Run the network, up to its head where it has one."""
        headed = isinstance(denoiser, HeadedDenoiser)
        network = denoiser.features if headed else denoiser
        features = self.call(network, z_t, t, self_condition, c).flatten(2).transpose(1, 2)
        num_codes = z_t.shape[1] // self.values.shape[1]
        return ChunkedHead(
            features.contiguous(), num_codes, denoiser.head if headed else None
        )  # features (B, hw, F)

    def nats_by(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        z_t: Tensor,
        t: Tensor,
        condition: Condition,
        seen: list[tuple[Tensor, Tensor]],
    ) -> list[Tensor]:
        """As of `lit_mbldm.processes.bound.DiscreteProcess`."""
        head = self.run(denoiser, z_t, t, None, condition)
        numbers = self.code_numbers(z0)
        sums = [z0.new_zeros(len(z0)) for _ in seen]
        for rows in head.chunks():
            for code in range(head.num_codes):
                cavity = self.logits(head, rows, code, z_t, t)
                cavity = cavity - self.evidence_logits(rows, code, z_t, t)
                for total, one in zip(sums, seen, strict=True):
                    logits = cavity + self.evidence_logits(rows, code, *one)
                    total[rows] += codeword_nats(logits, numbers[rows, code]).sum(1)
        return sums

    def _expect(
        self, head: ChunkedHead, z_t: Tensor, t: Time, kept: Tensor | None = None
    ) -> Tensor:
        """The expected z_0; all logits go to `kept`, (B, S, h, w, K)."""
        t = torch.as_tensor(t, device=z_t.device).expand(len(z_t))
        z0 = torch.empty_like(z_t)
        by_code = z0.unflatten(1, (head.num_codes, -1)).movedim(2, -1)  # (B, S, h, w, n)
        for rows in head.chunks():
            for code in range(head.num_codes):
                logits = self.logits(head, rows, code, z_t, t)
                if kept is not None:
                    kept[rows, code] = logits.view_as(kept[rows, code])
                with full_float32(z_t.device):
                    expected = expectation(logits, self.values)
                by_code[rows, code] = expected.view_as(by_code[rows, code])
        return z0
