"""The categorical reverse process: a network gives a distribution over codewords.

B samples, S code channels, K codewords, h×w positions, d numbers a codeword.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.base import full_float32
from lit_mbldm.codecs.latents import IndexLatent
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Condition, Denoiser, Prediction, Time
from lit_mbldm.processes.categorical_head import (
    ChunkedHead,
    draw_categories,
    expectation,
    gumbel_scores,
)
from lit_mbldm.processes.gaussian import GaussianForward
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule

ImageTarget = Literal["decoded", "original"]

# A standard deviation of about one index in 256.
_MAX_LOG_INVERSE_VARIANCE = 10.0


class CategoricalProcess(GaussianForward):
    """Gaussian noise forward, categories backward (Scribano et al. 2023, section 3.2.2).

    The network returns (B, S·K, h, w). The loss of a sample is

        min(SNR, γ)·(latent_weight·‖z_0 - z̃_0‖² + image_weight·‖x_0 - x̃_0‖²)
        + cross_entropy_weight·CE(z_0)

    with means in place of sums, x in [-1, 1], and z̃_0, x̃_0 from one Gumbel-softmax draw. The
    first two terms are the paper's L_cat under Min-SNR weights, for ‖ε - ε_θ‖² = SNR·‖z_0 - z̃_0‖².

    Args:
        num_timesteps: T.
        schedule: of ᾱ.
        gumbel_temperature: τ of the Gumbel-softmax in the loss.
        latent_weight: of the squared error of the soft index.
        image_weight: λ, of the squared error of the softly decoded image.
        image_target: compare it with "decoded", D(E(x)), or with the "original" x.
        cross_entropy_weight: 0 is the paper.
        likelihood: add log q(z_t | z_0) of each position's own noisy index to its logits (Bayes'
            rule), so that the network has to learn only what the surroundings say.
        gaussian_head: the network also returns, for each code, the mean μ and log inverse variance
            ρ of a Gaussian over the index, (B, S·(K+2), h, w), and its logits are added to
            -e^ρ (v - μ)²/2: indices are ordinal, and a number is learned faster than 256.
        min_snr_gamma: the clamp γ of Min-SNR weighting.
        self_conditioning: feed back the expected z_0.
        codebook_size: codewords K of the codec; None takes the codec's, 256 without one.
    """

    has_temperature = True
    levels: Tensor  # (K,): z_0 of each index

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "linear",
        gumbel_temperature: float = 1.0,
        latent_weight: float = 1.0,
        image_weight: float = 1.0,
        image_target: ImageTarget = "decoded",
        cross_entropy_weight: float = 0.0,
        likelihood: bool = False,
        gaussian_head: bool = False,
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        codebook_size: int | None = None,
    ) -> None:
        super().__init__(num_timesteps, schedule, min_snr_gamma, self_conditioning, codebook_size)
        if gumbel_temperature <= 0:
            raise InputError(f"gumbel_temperature must be positive, not {gumbel_temperature}.")
        weights = (latent_weight, image_weight, cross_entropy_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise InputError(
                "latent_weight, image_weight and cross_entropy_weight must not be negative, and one"
                f" must be positive; got {weights}."
            )
        if image_target not in get_args(ImageTarget):
            raise InputError(
                f"image_target is one of {get_args(ImageTarget)}, not {image_target!r}."
            )
        self.gumbel_temperature = gumbel_temperature
        self.latent_weight = latent_weight
        self.image_weight = image_weight
        self.image_target = image_target
        self.cross_entropy_weight = cross_entropy_weight
        self.likelihood = likelihood
        self.gaussian_head = gaussian_head
        self._codec: tuple[VectorQuantizedCodec, ...] = ()  # no submodule: not saved with it
        self._set_levels(codebook_size or 256)

    def _set_levels(self, codebook_size: int) -> None:
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
        self._set_levels(codec.codebook_size)

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

        def keep(rows: slice, code: int, chunk: Tensor) -> None:
            logits[rows, code] = chunk.view_as(logits[rows, code])

        head = self._head(denoiser, z_t, t, self_condition, condition)
        return Prediction(self._expect(head, z_t, t, keep), logits)

    def estimate(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Time,
        self_condition: Tensor | None = None,
        condition: Condition = None,
    ) -> Tensor:
        """Ask the network for the expected z_0 alone: its logits are not kept."""
        head = self._head(denoiser, z_t, t, self_condition, condition)
        return self._expect(head, z_t, t, lambda *_: None)

    def _head(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Time,
        self_condition: Tensor | None,
        condition: Condition,
    ) -> ChunkedHead:
        def call(network: Denoiser) -> Tensor:
            return self.call(network, z_t, t, self_condition, condition)

        return ChunkedHead.of(denoiser, z_t.shape[1], call)

    def _expect(
        self, head: ChunkedHead, z_t: Tensor, t: Time, keep: Callable[[slice, int, Tensor], None]
    ) -> Tensor:
        """The expected z_0; `keep` is given the logits of each chunk."""
        t = torch.as_tensor(t, device=z_t.device).expand(len(z_t))
        z0 = torch.empty_like(z_t)
        for rows in head.chunks():
            for code in range(head.num_codes):
                logits = self._logits(head, rows, code, z_t, t)
                keep(rows, code, logits)
                with full_float32(z_t.device):
                    levels = expectation(logits, self.levels[:, None])
                z0[rows, code] = levels.view_as(z0[rows, code])
        return z0

    def _logits(self, head: ChunkedHead, rows: slice, code: int, z_t: Tensor, t: Tensor) -> Tensor:
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

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss of the class's docstring.

        Logits are made and used a few at a time; the backward pass keeps one float32 number of
        each for the paper's terms and one for the cross-entropy.

        Args:
            denoiser: the network.
            z0: (B, S, h, w) float32, exact levels in [-1, 1].
            t: (B,) int64 in [1, T].
            streams: B of them.
            condition: of the network, or None.
            images: (B, 3, H, W) uint8, for `image_target="original"`.

        Returns:
            (B,) float32.

        Raises:
            InputError: `image_target="original"` without images.
        """
        z_t = self.add_noise(z0, t, streams)
        estimate = self.first_estimate(denoiser, z_t, t, streams, condition)
        head = self._head(denoiser, z_t, t, estimate, condition)
        codes = self.index.to_codes(z0).long()

        def channel(rows: slice, code: int) -> dict[str, Tensor]:
            logits = self._logits(head, rows, code, z_t, t)
            noise = partial(streams.branch, code, rows)
            with full_float32(z_t.device):
                return self._soften(logits, codes[rows, code].flatten(1), noise, code)

        terms: dict[str, list[Tensor]] = {}
        for code in range(head.num_codes):
            parts = [channel(rows, code) for rows in head.chunks()]
            for name in parts[0]:
                terms.setdefault(name, []).append(torch.cat([part[name] for part in parts]))
        with full_float32(z_t.device):
            return self._weigh(terms, z0, t, codes, images)

    def _soften(
        self, logits: Tensor, codes: Tensor, noise: Callable[[], SampleStreams], code: int
    ) -> dict[str, Tensor]:
        """What the loss needs of the logits (b·hw, K) of one code channel, codes (b, hw).

        `soft`, (b·hw, 1+d): soft index and, for the image term, codeword; `nats`, (b,).
        """
        terms = {}
        if self.latent_weight or self.image_weight:
            values = self.levels[:, None]
            if self.image_weight:
                values = torch.cat([values, self._codec[0].codebooks()[code]], dim=1)  # (K, 1+d)
            scores = gumbel_scores(logits, self.gumbel_temperature, noise())
            terms["soft"] = expectation(scores, values)
        if self.cross_entropy_weight:
            nats = F.cross_entropy(logits, codes.flatten(), reduction="none")
            terms["nats"] = nats.view_as(codes).mean(1)
        return terms

    def _weigh(
        self,
        terms: dict[str, list[Tensor]],
        z0: Tensor,
        t: Tensor,
        codes: Tensor,
        images: Tensor | None,
    ) -> Tensor:
        loss = torch.zeros(len(z0), device=z0.device)
        clamped = self.snr(t).flatten().clamp(max=self.min_snr_gamma)
        if self.latent_weight:
            levels = torch.stack([soft[:, 0].view_as(z0[:, 0]) for soft in terms["soft"]], dim=1)
            error = (levels - z0).square().flatten(1).mean(1)
            loss = loss + self.latent_weight * clamped * error
        if self.image_weight:
            (codec,) = self._codec
            codewords = [
                soft[:, 1:].reshape(*z0[:, 0].shape, -1) for soft in terms["soft"]
            ]  # S × (B, h, w, d)
            if self.image_target == "decoded":
                target = codec.look_up(codes)
            else:
                target = codec.to_vectors(_photographs(images))
            error = codec.image_error(codewords, target)
            loss = loss + self.image_weight * clamped * error
        if self.cross_entropy_weight:
            loss = loss + self.cross_entropy_weight * torch.stack(terms["nats"]).mean(0)
        return loss

    def expected(self, prediction: Prediction, temperature: float = 1.0) -> Tensor:
        """The mean (B, S, h, w) of softmax(logits/temperature), which `finish` draws z̃_0 around.

        Args:
            prediction: with logits.
            temperature: at least 0; 0 takes the most probable codeword.
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


def _photographs(images: Tensor | None) -> Tensor:
    if images is None:
        raise InputError(
            "image_target: original compares with the photographs, but the batches hold codes"
            " alone. Train on image shards, or use image_target: decoded."
        )
    return images
