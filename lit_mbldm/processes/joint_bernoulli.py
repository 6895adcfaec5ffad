"""Bits that flip on the way forward, and a network that says which codeword they were.

B samples, S code channels, K codewords of n bits, h×w positions, b samples of a chunk.
"""

import torch
from torch import Tensor

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.bits import bits_a_code, from_signs, to_signs
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.processes.base import Chance, Condition, Denoiser, Prediction
from lit_mbldm.processes.bernoulli import BernoulliForward, draw_signs, reverse_log_odds
from lit_mbldm.processes.categorical_head import ChunkedHead, codeword_nats, draw_categories
from lit_mbldm.processes.codeword_process import CodewordProcess
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule


class JointBernoulliProcess(CodewordProcess, BernoulliForward):
    """Bits forward, the n bits of each code together backward: they depend on each other.

    The network returns K logits a code, (B, S·K, h, w), in the order of the bits' binary number.
    They are what the surroundings say; the evidence of a code's noisy bits, Σ ½ l_t z_t b over the
    bits b = ±1 of a codeword, is added to them (Bayes' rule). The loss is the cross-entropy, and a
    step draws the codeword, then the bits of z_s.

    Args:
        num_timesteps: T.
        schedule: of k.
        self_conditioning: feed back the expected z_0.
        min_snr_gamma: as of `BernoulliForward`.
    """

    def __init__(
        self,
        num_timesteps: int = 256,
        schedule: Schedule = "linear",
        self_conditioning: bool = True,
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__(num_timesteps, schedule, self_conditioning, min_snr_gamma)
        self._set_codewords(256)

    def _set_codewords(self, codebook_size: int) -> None:
        bits = to_signs(torch.arange(codebook_size), bits_a_code(codebook_size))
        self.register_buffer("values", bits, persistent=False)

    def use(self, codec: ImageCodec) -> None:
        """Take the codec's number of codewords; raises InputError for no power of two."""
        self._set_codewords(codec.codebook_size)

    def output_channels(self, num_channels: int) -> int:
        """Channels that the network must return for S·n bits: S·K."""
        K, n = self.values.shape
        return num_channels // n * K

    def logits(self, head: ChunkedHead, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Logits (b·hw, K) of one code channel, with the evidence of its noisy bits."""
        return head.channel(rows, code) + self.evidence_logits(rows, code, z_t, t)

    def evidence_logits(self, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Σ ½ l_t z_t b over the bits b of each codeword, (b·hw, K)."""
        bits = z_t[rows].unflatten(1, (-1, self.values.shape[1]))[:, code]  # (b, n, h, w)
        noisy = self.evidence(bits, t[rows]).movedim(1, -1)
        with full_float32(z_t.device):
            return noisy.flatten(0, 2) / 2 @ self.values.mT

    def code_numbers(self, z0: Tensor) -> Tensor:
        """The codewords' numbers (B, S, h, w) int64 of z_0 (B, S·n, h, w)."""
        return from_signs(z0.unflatten(1, (-1, self.values.shape[1])).movedim(2, -1))

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Weighted cross-entropy in nats a bit, (B,) float32; logits are made a few at a time."""
        z_t = self.add_noise(z0, t, streams)
        estimate = self.first_estimate(denoiser, z_t, t, streams, condition)
        head = self.run(denoiser, z_t, t, estimate, condition)
        numbers = self.code_numbers(z0)  # (B, S, h, w)
        losses = torch.zeros(head.num_codes, len(z0), device=z0.device)
        for code in range(head.num_codes):
            for rows in head.chunks():
                logits = self.logits(head, rows, code, z_t, t)
                losses[code, rows] = codeword_nats(logits, numbers[rows, code]).mean(1)
        return self.loss_weight[t] * losses.mean(0) / self.values.shape[1]

    def step(self, z_t: Tensor, prediction: Prediction, t: int, s: int, chance: Chance) -> Tensor:
        """Draw a codeword, then the bits of z_s ~ q(z_s | z_t, z_0), any s < t.

        The temperature divides what the surroundings say, and 0 is its limit.
        """
        assert prediction.logits is not None
        times = torch.full((len(z_t),), t, device=z_t.device)
        drawn = []
        for code, logits in enumerate(prediction.logits.split(1, dim=1)):  # (B, 1, h, w, K)
            if chance.temperature != 1:
                evidence = self.evidence_logits(slice(None), code, z_t, times).view_as(logits)
                logits = (logits - evidence) / max(chance.temperature, 1e-9) + evidence
            drawn.append(draw_categories(logits, 1.0, chance.streams))
        z0 = self.values[torch.cat(drawn, dim=1)].movedim(-1, 2).flatten(1, 2)
        k_t, k_s = self.survival_at(t), self.survival_at(s)
        return draw_signs(reverse_log_odds(z0 * torch.inf, z_t, k_t, k_s), chance.streams)
