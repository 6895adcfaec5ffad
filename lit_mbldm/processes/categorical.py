"""The categorical reverse process: the network gives a distribution over codewords at each site.

B samples, S code channels, K codewords, h×w sites, d numbers a codeword.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.codecs.patches import YCBCR_TO_RGB
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.errors import InputError
from lit_mbldm.processes.forward import Denoiser, GaussianForward, Prediction, Time
from lit_mbldm.processes.schedules import Schedule
from lit_mbldm.randomness import SampleStreams

# A standard deviation of about one index in 256.
_MAX_LOG_PRECISION = 10.0


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
        image_weight: λ, of the squared error of the softly decoded image against D(E(x)).
        cross_entropy_weight: 0 is the paper.
        likelihood: add log q(z_t | z_0) of each site's own noisy index to its logits (Bayes'
            rule), so that the network has to learn only what a site's surroundings say.
        gaussian_head: the network also returns, for each code, the mean μ and log precision ρ of
            a Gaussian over the index, (B, S·(K+2), h, w), and its logits are added to
            -e^ρ (v - μ)²/2: indices are ordinal, and a number is learned faster than 256.
        min_snr_gamma: the clamp γ of Min-SNR weighting.
        self_conditioning: feed back the expected z_0.
        codebook_size: codewords K of the codec.
    """

    levels: Tensor  # (K,): z_0 of each index

    def __init__(
        self,
        num_timesteps: int = 1000,
        schedule: Schedule = "linear",
        gumbel_temperature: float = 1.0,
        latent_weight: float = 1.0,
        image_weight: float = 1.0,
        cross_entropy_weight: float = 0.0,
        likelihood: bool = False,
        gaussian_head: bool = False,
        min_snr_gamma: float = 5.0,
        self_conditioning: bool = True,
        codebook_size: int = 256,
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
        self.gumbel_temperature = gumbel_temperature
        self.latent_weight = latent_weight
        self.image_weight = image_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.likelihood = likelihood
        self.gaussian_head = gaussian_head
        levels = self.to_latent(torch.arange(codebook_size))
        self.register_buffer("levels", levels, persistent=False)

    def output_channels(self, num_codes: int) -> int:
        """Channels the network must return for S code channels: S·K, or S·(K+2)."""
        return num_codes * (self.codebook_size + 2 * self.gaussian_head)

    def predict(
        self, denoiser: Denoiser, z_t: Tensor, t: Time, self_condition: Tensor | None = None
    ) -> Prediction:
        """Ask the network for logits (B, S, K, h, w) and the expected z_0."""
        output = self.call(denoiser, z_t, t, self_condition).float()
        output = output.unflatten(1, (z_t.shape[1], -1))  # (B, S, K or K+2, h, w)
        with full_float32(z_t.device):
            logits = self._add_gaussians(output, z_t, t)
            return Prediction(self.expected_level(logits.softmax(2)), logits)

    def _add_gaussians(self, output: Tensor, z_t: Tensor, t: Time) -> Tensor:
        """Add both options' Gaussians in v by natural parameters: (b₁, b₂)·(v, -v²/2)."""
        logits = output[:, :, : self.codebook_size]
        natural = torch.zeros(2, *z_t.shape, device=z_t.device)
        if self.gaussian_head:
            mean, log_precision = output[:, :, self.codebook_size :].unbind(2)
            precision = log_precision.clamp(max=_MAX_LOG_PRECISION).exp()
            natural = natural + torch.stack([precision * mean, precision])
        if self.likelihood:
            precision = self.snr(t).expand_as(z_t)
            natural = natural + torch.stack([precision * z_t / self.scales(t)[0], precision])
        if not (self.gaussian_head or self.likelihood):
            return logits
        basis = torch.stack([self.levels, -self.levels.square() / 2], dim=1)  # (K, 2)
        gaussians = basis @ natural.movedim(0, 2).flatten(3)  # (B, S, K, hw)
        return logits + gaussians.view_as(logits)

    def expected_level(self, weights: Tensor) -> Tensor:
        """Σ_k w_k v_k: soft indices (B, S, h, w) in [-1, 1] of weights (B, S, K, h, w)."""
        return (self.levels @ weights.flatten(3)).view(weights.shape[:2] + weights.shape[3:])

    def loss(
        self,
        denoiser: Denoiser,
        z0: Tensor,
        t: Tensor,
        generator: SampleStreams,
        codec: PatchCodec,
    ) -> Tensor:
        """The weighted loss of the class's docstring.

        Args:
            denoiser: the network.
            z0: (B, S, h, w) float32, exact levels in [-1, 1].
            t: (B,) int64 in [1, T].
            generator: B streams.
            codec: whose codewords the image term is measured in.

        Returns:
            (B,) float32.
        """
        z_t = self.corrupt(z0, t, generator)
        estimate = self.first_estimate(denoiser, z_t, t, generator)
        logits = self.predict(denoiser, z_t, t, estimate).logits
        assert logits is not None
        with full_float32(z0.device):
            return self._terms(logits, z0, t, generator, codec)

    def _terms(
        self, logits: Tensor, z0: Tensor, t: Tensor, generator: SampleStreams, codec: PatchCodec
    ) -> Tensor:
        codes = self.to_codes(z0).long()
        loss = torch.zeros(len(z0), device=z0.device)
        if self.latent_weight or self.image_weight:
            soft = self.gumbel_softmax(logits, generator)
            error = self.latent_weight * (
                (self.expected_level(soft) - z0).square().flatten(1).mean(1)
            )
            if self.image_weight:
                error = error + self.image_weight * image_error(codec, soft, codes)
            loss = loss + self.snr(t).flatten().clamp(max=self.min_snr_gamma) * error
        if self.cross_entropy_weight:
            nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(0, 1), reduction="none")
            loss = loss + self.cross_entropy_weight * nats.view(len(z0), -1).mean(1)
        return loss

    def gumbel_softmax(self, logits: Tensor, generator: SampleStreams) -> Tensor:
        """A differentiable draw (B, S, K, h, w) from softmax(logits) (Jang et al. 2016)."""
        uniform = generator.uniform(logits.shape[1:]).clamp_(min=torch.finfo().tiny)
        gumbel = uniform.log_().neg_().log_().neg_()
        return ((logits + gumbel) / self.gumbel_temperature).softmax(2)

    def step(
        self,
        z_t: Tensor,
        prediction: Prediction,
        t: int,
        s: int,
        generator: SampleStreams,
        temperature: float = 1.0,
    ) -> Tensor:
        """Algorithm 2: draw z̃_0 from softmax(logits/γ), then z_s ~ q(z_s | z_t, z̃_0).

        Args:
            z_t: (B, S, h, w).
            prediction: with logits.
            t: the present time.
            s: the next time, s < t; 0 returns z̃_0 itself.
            generator: B streams.
            temperature: γ ≥ 0; 0 takes the most probable codeword.
        """
        z0 = self.finish(prediction, generator, temperature)
        return self.draw_posterior(z_t, z0, t, s, generator)

    def finish(
        self, prediction: Prediction, generator: SampleStreams, temperature: float = 1.0
    ) -> Tensor:
        """Draw z̃_0 from softmax(logits/γ): (B, S, h, w), exact levels."""
        assert prediction.logits is not None
        return self.levels[draw_categories(prediction.logits, temperature, generator)]


def draw_categories(logits: Tensor, temperature: float, generator: SampleStreams) -> Tensor:
    """Draw a category from softmax(logits/γ) at every site by inverse CDF.

    The CDF is summed in float64: float32 Gumbel noise biases the tails.

    Args:
        logits: (B, S, K, h, w) float.
        temperature: γ ≥ 0; 0 is the argmax.
        generator: B streams.

    Returns:
        (B, S, h, w) int64 in [0, K-1].
    """
    if temperature < 0:
        raise InputError(f"The sampling temperature must be at least 0, not {temperature}.")
    if temperature == 0:
        return logits.argmax(2)
    _, S, K, h, w = logits.shape
    exact = torch.float32 if logits.device.type == "mps" else torch.float64  # mps lacks float64
    u = generator.uniform((S, 1, h, w)).to(exact)
    draws = []
    for row, uniform in zip(logits, u, strict=True):
        cdf = (row.to(exact) / temperature).softmax(1).cumsum(1)  # (S, K, h, w)
        draws.append((cdf <= uniform * cdf[:, -1:]).sum(1))
    return torch.stack(draws).clamp_(max=K - 1)


def image_error(codec: PatchCodec, weights: Tensor, codes: Tensor) -> Tensor:
    """Mean squared error of the softly decoded image against D(codes), x in [-1, 1].

    Measured on patches before they are put in place, and without clipping.

    Args:
        codec: the codec.
        weights: (B, S, K, h, w), summing to one over K.
        codes: (B, S, h, w) int64.

    Returns:
        (B,) float32.
    """
    target = [book[codes[:, site]] for site, book in enumerate(codec.codebooks())]
    soft = codec.soft_codewords(weights)
    ycbcr = codec.assemble([a - b for a, b in zip(soft, target, strict=True)])  # (3, B, h, w, s²)
    rgb = torch.einsum("rc,cbhwd->rbhwd", YCBCR_TO_RGB.to(ycbcr), ycbcr) / 127.5
    return rgb.square().mean(dim=(0, 2, 3, 4))
