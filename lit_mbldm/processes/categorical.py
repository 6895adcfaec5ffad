"""The loss of the categorical process.

B samples, S code channels, K codewords, h×w positions, b samples of a chunk, d numbers a codeword.
"""

from typing import Literal

import torch
from torch import Tensor

from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.errors import InputError, check_choice, check_positive
from lit_mbldm.processes.base import Condition, Denoiser
from lit_mbldm.processes.categorical_head import codeword_nats, expectation, gumbel_scores
from lit_mbldm.processes.categorical_reverse import CategoricalReverse
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.schedules import Schedule

ImageTarget = Literal["decoded", "original"]


class CategoricalProcess(CategoricalReverse):
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
        check_positive(gumbel_temperature=gumbel_temperature)
        check_choice(ImageTarget, image_target=image_target)
        weights = (latent_weight, image_weight, cross_entropy_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise InputError(
                "latent_weight, image_weight and cross_entropy_weight must not be negative, and one"
                f" must be positive; got {weights}."
            )
        self.gumbel_temperature = gumbel_temperature
        self.latent_weight = latent_weight
        self.image_weight = image_weight
        self.image_target = image_target
        self.cross_entropy_weight = cross_entropy_weight
        self.likelihood = likelihood
        self.gaussian_head = gaussian_head
        self.set_levels(codebook_size or 256)

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        streams: SampleStreams,
        condition: Condition = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss of the class's docstring, (B,) float32; z0 holds exact levels.

        Logits are made and used a few at a time; the backward pass keeps one float32 number of
        each for the paper's terms and one for the cross-entropy.

        Raises:
            InputError: `image_target="original"` without images.
        """
        z_t = self.add_noise(z0, t, streams)
        estimate = self.first_estimate(denoiser, z_t, t, streams, condition)
        head = self.run(denoiser, z_t, t, estimate, condition)
        codes = self.code_numbers(z0)
        terms: dict[str, list[Tensor]] = {"soft": [], "nats": []}
        for code in range(head.num_codes):
            parts = []
            for rows in head.chunks():
                logits = self.logits(head, rows, code, z_t, t)
                with full_float32(z_t.device):
                    parts.append(self._soften(logits, codes, streams, rows, code))
            for name in parts[0]:
                terms[name].append(torch.cat([part[name] for part in parts]))
        with full_float32(z_t.device):
            return self._weigh(terms, z0, t, codes, images)

    def _soften(
        self, logits: Tensor, codes: Tensor, streams: SampleStreams, rows: slice, code: int
    ) -> dict[str, Tensor]:
        """What the loss needs of the logits (b·hw, K) of one code channel, codes (B, S, h, w).

        `soft`, (b·hw, 1+d): soft index and, for the image term, codeword; `nats`, (b,).
        """
        terms = {}
        if self.latent_weight or self.image_weight:
            values = self.values
            if self.image_weight:
                values = torch.cat([values, self._codec[0].codebooks()[code]], dim=1)  # (K, 1+d)
            noise = streams.branch(code, rows)
            scores = gumbel_scores(logits, self.gumbel_temperature, noise)
            terms["soft"] = expectation(scores, values)
        if self.cross_entropy_weight:
            terms["nats"] = codeword_nats(logits, codes[rows, code]).mean(1)
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
        clamped = self.clamped_snr(t)
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
                images = None
            elif images is None:
                raise InputError(
                    "image_target: original compares with the photographs, but the batches hold"
                    " codes alone. Train on image shards, or use image_target: decoded."
                )
            error = codec.codeword_error(codewords, codes, images)
            loss = loss + self.image_weight * clamped * error
        if self.cross_entropy_weight:
            loss = loss + self.cross_entropy_weight * torch.stack(terms["nats"]).mean(0)
        return loss
