"""The categorical reverse process: a network's distribution over codewords, and draws from it.

B samples, S code channels, K codewords, h×w positions, b samples of a chunk.
"""

from typing import Any

import torch
from torch import Tensor

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.base import full_float32
from lit_mbldm.codecs.latents import IndexLatent
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Condition, Denoiser, Prediction, Time
from lit_mbldm.processes.categorical_head import (
    ChunkedHead,
    HeadedDenoiser,
    draw_categories,
    expectation,
)
from lit_mbldm.processes.gaussian import GaussianForward
from lit_mbldm.processes.randomness import SampleStreams

# A standard deviation of about one index in 256.
_MAX_LOG_INVERSE_VARIANCE = 10.0


class CategoricalReverse(GaussianForward):
    """Gaussian noise forward, categories backward (Scribano et al. 2023, section 3.2.2).

    `CategoricalProcess` adds the loss and the constructor.
    """

    has_temperature = True
    likelihood: bool
    gaussian_head: bool
    levels: Tensor  # (K,): z_0 of each index
    _codec: tuple[VectorQuantizedCodec, ...] = ()  # no submodule: not saved with it

    def set_levels(self, codebook_size: int) -> None:
        """Set the number K of codewords, whose indices are z_0."""
        self.num_codewords = codebook_size
        self.index = IndexLatent(codebook_size)
        levels = self.index.to_latent(torch.arange(codebook_size))
        self.register_buffer("levels", levels, persistent=False)

    def use(self, codec: ImageCodec) -> None:
        """Take the codec's codewords, which the loss decodes softly.

        Raises:
            InputError: another number of codewords than `codebook_size`, or no codebooks.
        """
        super().use(codec)
        if not isinstance(codec, VectorQuantizedCodec):
            raise InputError(
                f"A {type(self).__name__} needs a codec with codebooks, got a"
                f" {type(codec).__name__}."
            )
        self._codec = (codec,)
        self.set_levels(codec.codebook_size)

    def output_channels(self, num_channels: int) -> int:
        """Channels that the network must return for S code channels: S·K, or S·(K+2)."""
        return num_channels * (self.num_codewords + 2 * self.gaussian_head)

    def predict(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Time,
        self_condition: Tensor | None = None,
        condition: Condition = None,
    ) -> Prediction:
        """Ask the network for logits (B, S, h, w, K) and the expected z_0."""
        logits = torch.empty(*z_t.shape, self.num_codewords, device=z_t.device)
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
        return ChunkedHead(
            features.contiguous(), z_t.shape[1], denoiser.head if headed else None
        )  # features (B, hw, F)

    def _expect(
        self, head: ChunkedHead, z_t: Tensor, t: Time, kept: Tensor | None = None
    ) -> Tensor:
        """The expected z_0; all logits go to `kept`, (B, S, h, w, K)."""
        t = torch.as_tensor(t, device=z_t.device).expand(len(z_t))
        z0 = torch.empty_like(z_t)
        for rows in head.chunks():
            for code in range(head.num_codes):
                logits = self.logits(head, rows, code, z_t, t)
                if kept is not None:
                    kept[rows, code] = logits.view_as(kept[rows, code])
                with full_float32(z_t.device):
                    levels = expectation(logits, self.levels[:, None])
                z0[rows, code] = levels.view_as(z0[rows, code])
        return z0

    def logits(self, head: ChunkedHead, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Logits (b·hw, K) of one code channel, with both options' Gaussians.

        Those are added in v by natural parameters: (b₁, b₂)·(v, -v²/2).
        """
        output = head.channel(rows, code)  # (b·hw, K or K+2)
        logits = output[:, : self.num_codewords]
        if not (self.gaussian_head or self.likelihood):
            return logits
        z_t, t = z_t[rows, code].flatten(1), t[rows]  # (b, hw), (b,)
        natural = torch.zeros(z_t.numel(), 2, device=z_t.device)
        with full_float32(z_t.device):
            if self.gaussian_head:
                mean, rho = output[:, self.num_codewords :].clone().unbind(1)
                weight = rho.clamp(max=_MAX_LOG_INVERSE_VARIANCE).exp()
                natural = natural + torch.stack([weight * mean, weight], dim=1)
            if self.likelihood:
                weight = self.snr(t).flatten(1).expand_as(z_t)
                mean = z_t / self.alpha_sigma(t)[0].flatten(1)
                natural = natural + torch.stack([weight * mean, weight], dim=2).flatten(0, 1)
            basis = torch.stack([self.levels, -self.levels.square() / 2])  # (2, K)
            return torch.addmm(logits, natural, basis)

    def expected(self, prediction: Prediction, temperature: float = 1.0) -> Tensor:
        """The mean (B, S, h, w) of softmax(logits/temperature), which `finish` draws z̃_0 around.

        At temperature 0 it is the most probable codeword's level.
        """
        if temperature == 1:
            return prediction.z0
        assert prediction.logits is not None
        if temperature == 0:
            return self.levels[prediction.logits.argmax(-1)]
        z0 = torch.empty_like(prediction.z0)
        for row, logits in zip(z0, prediction.logits, strict=True):
            scores = logits.flatten(0, 2) / temperature  # (S·h·w, K)
            with full_float32(z0.device):
                row.copy_(expectation(scores, self.levels[:, None]).view_as(row))
        return z0

    def finish(
        self, prediction: Prediction, streams: SampleStreams, temperature: float = 1.0
    ) -> Tensor:
        """Draw z̃_0 from softmax(logits/temperature): (B, S, h, w), exact levels.

        `step` then draws z_s ~ q(z_s | z_t, z̃_0): algorithm 2 of Scribano et al. 2023.
        """
        assert prediction.logits is not None
        return self.levels[draw_categories(prediction.logits, temperature, streams)]
