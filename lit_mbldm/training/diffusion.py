"""What continuous and categorical training share: wiring of codec, process and denoiser."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lit_mbldm.codecs import ImageCodec, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.errors import InputError
from lit_mbldm.processes.forward import GaussianForward
from lit_mbldm.randomness import SampleStreams
from lit_mbldm.ranks import gather_rows
from lit_mbldm.samplers import Sampler, draw
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.refiner import Refiner
from lit_mbldm.zoo.checkpoint import CHECKPOINT_KEY


class DiffusionModule(CodecModule):
    """A diffusion model of a codec's codes; the base of continuous and categorical training.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        denoiser: the network (z_t, t/T, self-conditioning) -> prediction.
        process: how codes are noised and what the loss is.
        image_size: height and width of the images in pixels.
        learning_rate: of Adam.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
        allow_residual: accept an RQ codec, whose codes are ambiguous as a latent.
        latent: codes as numbers; by default their indices.

    Raises:
        InputError: parts that do not fit each other, or an RQ codec that is not allowed.
    """

    process_class: ClassVar[type[GaussianForward]] = GaussianForward
    latent_class: ClassVar[type[Latent]] = Latent

    def __init__(
        self,
        codec: str | ImageCodec,
        denoiser: nn.Module,
        process: GaussianForward,
        image_size: int,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        allow_residual: bool = False,
        latent: Latent | None = None,
    ) -> None:
        super().__init__(codec, learning_rate, betas, warmup_steps)
        self.denoiser = denoiser
        self.process = process
        self.image_size = image_size
        self.allow_residual = allow_residual
        self.latent = IndexLatent(self.codec.codebook_size) if latent is None else latent
        self._check_kinds()
        self.latent.use(self.codec)
        self.codes_shape = self.codec.latent_shape(image_size, image_size)
        num_channels = self.latent.num_channels(self.codec.num_codes)
        self.latent_shape = (num_channels, *self.codes_shape[1:])
        self.sample_arguments: dict[str, Any] = {}  # of `generate`, in test and predict
        self._refiner: tuple[Refiner, ...] = ()  # no submodule: neither trained nor saved with it
        self.train_by_time, self.val_by_time = LossByTime(), LossByTime()
        self._check_parts()
        self.train()

    def _check_kinds(self) -> None:
        for part, needed in ((self.process, self.process_class), (self.latent, self.latent_class)):
            if not isinstance(part, needed):
                raise InputError(
                    f"A {type(self).__name__} needs a {needed.__name__}, got a"
                    f" {type(part).__name__}."
                )

    def _check_parts(self) -> None:
        if self.codec.quantizer.startswith("RQ") and not self.allow_residual:
            raise InputError(
                "An RQ codec is a poor latent: several codes decode to nearly the same patch. Use"
                " an OPQ codec such as opq-32-8-8, or set allow_residual: true."
            )
        if self.process.codebook_size != self.codec.codebook_size:
            raise InputError(
                f"The process has codebook_size {self.process.codebook_size}, the codec"
                f" {self.codec.codebook_size}: set the process's to the codec's."
            )
        channels = self.latent.num_channels(self.codec.num_codes)
        for name, expected in (
            ("in_channels", channels),
            ("out_channels", self.process.output_channels(channels)),
        ):
            found = getattr(self.denoiser, name, expected)
            if found != expected:
                raise InputError(
                    f"A {type(self.process).__name__} on {self.codec.quantizer} needs a denoiser"
                    f" with {name}: {expected}, got {found}."
                )

    @property
    def refiner(self) -> Refiner | None:
        """What samples pass through unless told otherwise."""
        return self._refiner[0] if self._refiner else None

    def use_refiner(self, refiner: Refiner) -> None:
        """Pass samples through a refiner unless told otherwise.

        Raises:
            InputError: no refiner, or one of another codec's images.
        """
        self.check_refiner(refiner)
        self._refiner = (refiner,)

    def check_refiner(self, refiner: nn.Module) -> None:
        """Raise InputError unless this is a refiner of this model's codec."""
        if not isinstance(refiner, Refiner):
            raise InputError(f"Expected a Refiner, got a {type(refiner).__name__}.")
        expected, found = self.codec.image_fingerprint, refiner.codec.image_fingerprint
        if found != expected:
            raise InputError(
                "The refiner was trained on images of another codec: expected fingerprint"
                f" {expected}, got {found}. Train one on images of {self.codec.quantizer}."
            )

    def process_loss(
        self, z0: Tensor, t: Tensor, generator: SampleStreams, images: Tensor | None
    ) -> Tensor:
        """The process's loss of each sample, (B,)."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...], by_time: LossByTime) -> Tensor:
        """Mean loss of a batch at random times.

        Args:
            batch: `codes`, (B, S, h, w) uint8, `index`, (B,) int64, and perhaps their `images`,
                (B, 3, H, W) uint8.
            key: of the times and the noise.
            by_time: takes note of each sample's loss.

        Raises:
            InputError: codes of another shape than the model's.
        """
        codes = batch["codes"]
        if codes.shape[1:] != self.codes_shape:
            raise InputError(
                f"The model is for codes of shape {tuple(self.codes_shape)} (image_size"
                f" {self.image_size}), the data has {tuple(codes.shape[1:])}. Make the model's and"
                " the data's image sizes and codecs agree."
            )
        generator = self.streams(batch, key)
        t = generator.integers(1, self.process.num_timesteps + 1)
        z0 = self.latent.to_latent(codes)
        losses = self.process_loss(z0, t, generator, batch.get("images"))
        by_time.update(losses, t / self.process.num_timesteps)
        return losses.mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step on a batch's `codes`, (B, S, h, w) uint8."""
        loss = self.loss(batch, self.training_key(), self.train_by_time)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        metrics = self.train_by_time.metrics("train/loss_at")
        self.log_dict(metrics, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss with the same times and noise every epoch."""
        size = len(batch["codes"])
        loss = self.loss(batch, self.validation_key(), self.val_by_time)
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=size)
        self.log_dict(self.val_by_time.metrics("val/loss_at"), batch_size=size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep also what each process's means of the epoch have taken in."""
        super().on_save_checkpoint(checkpoint)
        sums = self.train_by_time.sums()[None]
        checkpoint[CHECKPOINT_KEY]["loss_by_time"] = gather_rows(sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them over; with another number of processes the first takes all."""
        super().on_load_checkpoint(checkpoint)
        sums = checkpoint[CHECKPOINT_KEY].get("loss_by_time")  # (W, 10, 2)
        world_size = self._trainer.world_size if self._trainer is not None else 1
        if sums is not None and len(sums) == world_size:
            self.train_by_time.restore(sums[self.global_rank])
        elif sums is not None and self.global_rank == 0:
            self.train_by_time.restore(sums.sum(0))

    def test_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Generate the images, (B, 3, H, W) uint8, of sample numbers (B,) int64."""
        return self.generate(batch.tolist(), **self.sample_arguments)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Generate images as `test_step` does."""
        return self.test_step(batch, batch_idx)

    def sample(
        self,
        num_images: int,
        steps: int = 50,
        seed: int = 0,
        batch_size: int = 16,
        progress: bool = False,
        sampler: Sampler = "ddpm",
        eta: float = 0.0,
        refiner: Refiner | bool = True,
    ) -> Tensor:
        """Generate images; image i depends on (seed, i) alone.

        Args:
            num_images: N.
            steps: reverse steps, at most T.
            seed: of the noise.
            batch_size: images made at once.
            progress: show a progress bar.
            sampler: "ddpm" (ancestral, the paper's), "ddim" or "dpm++" (DPM-Solver++ 2M).
            eta: of ddim, from 0 (no noise) to 1.
            refiner: to pass the decoded images through; True is the one that came with the model,
                if any, False none.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU.

        Raises:
            InputError: numbers out of range, or eta with another sampler than ddim.
        """
        return self._sample(
            num_images, batch_size, progress, steps, seed, refiner, sampler=sampler, eta=eta
        )

    def _sample(
        self,
        num_images: int,
        batch_size: int,
        progress: bool,
        steps: int,
        seed: int,
        refiner: Refiner | bool,
        **options: Any,
    ) -> Tensor:
        if min(num_images, batch_size) < 1:
            raise InputError(
                "The number of images and the batch size must be at least 1, got"
                f" {num_images} and {batch_size}."
            )
        images = []
        with tqdm(total=num_images * steps, disable=not progress, desc="sampling") as bar:
            for numbers in torch.arange(num_images).split(batch_size):
                advance = partial(_advance, bar, len(numbers))
                made = self.generate(
                    numbers.tolist(), steps, seed, refiner=refiner, on_step=advance, **options
                )
                images.append(made.cpu())
        return torch.cat(images)

    @torch.inference_mode()
    def generate(
        self,
        numbers: Sequence[int],
        steps: int = 50,
        seed: int = 0,
        refiner: Refiner | bool = True,
        **options: Any,
    ) -> Tensor:
        """Generate the images of these numbers as one batch.

        Args:
            numbers: B sample numbers; sample i depends on (seed, i) alone.
            steps: reverse steps, at most T.
            seed: of the noise.
            refiner: to pass the decoded images through; True is the one that came with the model,
                if any, False none.
            options: of `lit_mbldm.samplers.draw`.

        Returns:
            (B, 3, H, W) uint8 RGB on the model's device.
        """
        training = self.training
        self.eval()
        try:
            streams = self._sample_streams(seed, numbers)
            z0 = draw(self.process, self.denoiser, self.latent_shape, steps, streams, **options)
        finally:
            self.train(training)
        images = self.codec.decode(self.latent.to_codes(z0))
        chosen = self.refiner if refiner is True else refiner
        return chosen.to(self.device).refine(images) if chosen else images

    def sample_paths(
        self, num_images: int, frames: int = 11, steps: int = 50, seed: int = 0, **options: Any
    ) -> Tensor:
        """Decode z_t along the way from noise to image (Scribano et al. 2023, figure 7).

        Args:
            num_images: B.
            frames: F of each path, evenly spread over the steps, noise and image included.
            steps: reverse steps, at most T.
            seed: of the noise: the last frames are `generate`'s images, unrefined.
            options: of `lit_mbldm.samplers.draw`.

        Returns:
            (B, F, 3, H, W) uint8 RGB on the model's device.

        Raises:
            InputError: fewer than 2 frames, or more than steps + 1.
        """
        picks = frame_steps(frames, steps)
        numbers = range(num_images)
        noise = self.process.prior(self.latent_shape, self._sample_streams(seed, numbers))
        path = [noise]
        options |= {"refiner": False, "on_step": lambda step, z, _: path.append(z)}
        self.generate(numbers, steps, seed, **options)
        decoded = [self.codec.decode(self.latent.to_codes(path[step])) for step in picks]
        return torch.stack(decoded, dim=1)

    def _sample_streams(self, seed: int, numbers: Sequence[int]) -> SampleStreams:
        return SampleStreams([(seed, number) for number in numbers], self.device)


def frame_steps(frames: int, steps: int) -> list[int]:
    """After how many of a path's steps each of its frames is taken, from 0 to steps.

    Raises:
        InputError: fewer than 2 frames, or more than steps + 1.
    """
    if not 2 <= frames <= steps + 1:
        raise InputError(f"A path of {steps} steps has from 2 to {steps + 1} frames, not {frames}.")
    return [round(i * steps / (frames - 1)) for i in range(frames)]


def _advance(bar: tqdm, count: int, *step: object) -> None:
    bar.update(count)
