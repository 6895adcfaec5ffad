"""The categorical reverse process: a network's distribution over codewords, and draws from it.

B samples, S code channels, K codewords, h×w positions, b samples of a chunk.
"""

import torch
from torch import Tensor

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.latents import IndexLatent
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Chance, Prediction
from lit_mbldm.processes.categorical_head import ChunkedHead, draw_categories, expectation
from lit_mbldm.processes.codeword_process import CodewordProcess
from lit_mbldm.processes.gaussian_forward import GaussianForward

# A standard deviation of about one index in 256.
_MAX_LOG_INVERSE_VARIANCE = 10.0


class CategoricalReverse(CodewordProcess, GaussianForward):
    """Gaussian noise forward, categories backward (Scribano et al. 2023, section 3.2.2).

    `CategoricalProcess` adds the loss and the constructor.
    """

    has_temperature = True
    likelihood: bool
    gaussian_head: bool
    _codec: tuple[VectorQuantizedCodec, ...] = ()  # no submodule: not saved with it

    def set_levels(self, codebook_size: int) -> None:
        """Set the number K of codewords, whose indices are z_0."""
        self.num_codewords = codebook_size
        self.index = IndexLatent(codebook_size)
        levels = self.index.to_latent(torch.arange(codebook_size))
        self.register_buffer("values", levels[:, None], persistent=False)

    @property
    def levels(self) -> Tensor:
        """z_0 of each index, (K,)."""
        return self.values[:, 0]

    def use(self, codec: ImageCodec) -> None:
        """Take the codec's codewords, which the loss decodes softly.

        Raises InputError for another number of codewords than `codebook_size`, or no codebooks.
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

    def logits(self, head: ChunkedHead, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Logits (b·hw, K) of one code channel, with both options' Gaussians.

        Those are added in v by natural parameters: (b₁, b₂)·(v, -v²/2).
        """
        output = head.channel(rows, code)  # (b·hw, K or K+2)
        logits = output[:, : self.num_codewords]
        if not (self.gaussian_head or self.likelihood):
            return logits
        natural = torch.zeros(len(output), 2, device=z_t.device)
        with full_float32(z_t.device):
            if self.gaussian_head:
                mean, rho = output[:, self.num_codewords :].clone().unbind(1)
                weight = rho.clamp(max=_MAX_LOG_INVERSE_VARIANCE).exp()
                natural = natural + torch.stack([weight * mean, weight], dim=1)
            if self.likelihood:
                natural = natural + self._likelihood(rows, code, z_t, t)
            return torch.addmm(logits, natural, self._basis)

    @property
    def _basis(self) -> Tensor:
        return torch.stack([self.levels, -self.levels.square() / 2])  # (2, K)

    def _likelihood(self, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Natural parameters of q(z_t | z_0) in z_0, (b·hw, 2)."""
        z_t, t = z_t[rows, code].flatten(1), t[rows]  # (b, hw), (b,)
        weight = self.snr(t).flatten(1).expand_as(z_t)
        mean = z_t / self.alpha_sigma(t)[0].flatten(1)
        return torch.stack([weight * mean, weight], dim=2).flatten(0, 1)

    def evidence_logits(self, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
        """Log-likelihoods of z_t for each codeword, but for a constant, (b·hw, K)."""
        with full_float32(z_t.device):
            return self._likelihood(rows, code, z_t, t) @ self._basis

    def code_numbers(self, z0: Tensor) -> Tensor:
        """The codewords' numbers (B, S, h, w) int64 of z_0."""
        return self.index.to_codes(z0).long()

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
                row.copy_(expectation(scores, self.values).view_as(row))
        return z0

    def finish(self, prediction: Prediction, chance: Chance) -> Tensor:
        """Draw z̃_0 from softmax(logits/temperature): (B, S, h, w), exact levels.

        `step` then draws z_s ~ q(z_s | z_t, z̃_0): algorithm 2 of Scribano et al. 2023.
        """
        assert prediction.logits is not None
        drawn = draw_categories(prediction.logits, chance.temperature, chance.streams)
        return self.levels[drawn]
