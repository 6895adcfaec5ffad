"""What continuous and categorical training share: wiring of codec, process and denoiser."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lit_mbldm.codecs import ImageCodec, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.entries.about import about_module
from lit_mbldm.entries.checkpoint import CHECKPOINT_KEY
from lit_mbldm.errors import InputError
from lit_mbldm.parallel.ranks import gather_rows
from lit_mbldm.processes.forward import GaussianForward
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import OnStep, Sampler, check_sampler, draw, time_grid
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.options import SampleOptions, fresh_seed
from lit_mbldm.training.refiner import Refiner, load_refiner

_STEPS, _FRAMES = 50, 11  # where nothing else is said


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
        self.test_options = SampleOptions()  # of test and predict, which their callbacks set
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
        """Keep also the sampling options, and what each process's means have taken in."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["sampling"] = self.sampling.given()
        sums = self.train_by_time.sums()[None]
        checkpoint[CHECKPOINT_KEY]["loss_by_time"] = gather_rows(sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them over, options that the config sets excepted.

        With another number of processes the first takes all sums.
        """
        super().on_load_checkpoint(checkpoint)
        kept = SampleOptions.read(checkpoint[CHECKPOINT_KEY].get("sampling", {}))
        self.sampling = self.sampling.over(kept)
        sums = checkpoint[CHECKPOINT_KEY].get("loss_by_time")  # (W, 10, 2)
        world_size = self._trainer.world_size if self._trainer is not None else 1
        if sums is not None and len(sums) == world_size:
            self.train_by_time.restore(sums[self.global_rank])
        elif sums is not None and self.global_rank == 0:
            self.train_by_time.restore(sums.sum(0))

    def test_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Generate the images, (B, 3, H, W) uint8, of sample numbers (B,) int64."""
        return self.generate(batch.tolist(), self.test_options)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Generate images as `test_step` does."""
        return self.test_step(batch, batch_idx)

    @property
    def sampling(self) -> SampleOptions:
        """The model's own options, for what `sample` is not told.

        They come from its entry, its checkpoint or the config's `SampleImages`, and go into
        checkpoints and entries.
        """
        return SampleOptions.read(about_module(self).sampling)

    @sampling.setter
    def sampling(self, options: SampleOptions) -> None:
        vars(self)["about"] = replace(about_module(self), sampling=options.given())

    def settle(self, options: SampleOptions) -> SampleOptions:
        """Complete options by the model's own, check them, and load the refiner they name.

        Raises:
            InputError: an option that the model does not take or out of range, or a refiner that
                does not load or is another codec's.
        """
        steps = min(_STEPS, self.process.num_timesteps)
        options = options.over(self.sampling).over(SampleOptions(steps, sampler="ddpm"))
        assert options.steps is not None and options.sampler is not None  # noqa: PT018
        check_sampler(options.sampler, options.eta or 0.0)
        time_grid(self.process.num_timesteps, options.steps)
        if options.temperature is not None and not self.process.has_temperature:
            raise InputError(f"A {type(self).__name__} takes no temperature: leave it out.")
        refiner = options.refiner
        if refiner in (None, "none"):
            return options
        if isinstance(refiner, str):
            refiner = load_refiner(refiner)
        self.check_refiner(refiner)
        return replace(options, refiner=refiner)

    def sample(
        self,
        num_images: int,
        steps: int | None = None,
        seed: int | None = 0,
        batch_size: int = 16,
        progress: bool = False,
        sampler: Sampler | None = None,
        eta: float | None = None,
        refiner: Refiner | bool = True,
        temperature: float | Literal["argmax"] | None = None,
    ) -> Tensor:
        """Generate images; image i depends on (seed, i) alone.

        None is the model's own setting, `sampling`, as in `lit-mbldm sample`, else the default.

        Args:
            num_images: N.
            steps: reverse steps, at most T; by default 50.
            seed: of the noise, one integer of Python, numpy or torch: equal numbers are one seed.
                None draws a fresh one, which a log line tells.
            batch_size: images made at once.
            progress: show a progress bar.
            sampler: "ddpm" (ancestral, the paper's, the default), "ddim" or "dpm++" (DPM-Solver++
                2M). The latter two follow the expected z_0; a categorical model then draws its
                codewords at the last step.
            eta: of ddim, from 0 (no noise, the default) to 1.
            refiner: to pass the decoded images through; True is the one that came with the model,
                if any, False none.
            temperature: γ of a categorical model's softmax at every step, by default 1; 0 or
                "argmax" takes the most probable codeword.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU.

        Raises:
            InputError: numbers out of range, a seed that is no integer, a temperature for a
                continuous model, or eta with another sampler than ddim.

        Example:
            >>> from lit_mbldm.zoo import load_pretrained
            >>> model = load_pretrained("clothing-64")
            >>> model.sample(2, seed=0, steps=2, temperature=0.6).shape
            torch.Size([2, 3, 64, 64])
        """
        options = SampleOptions(
            steps,
            fresh_seed() if seed is None else seed,
            sampler,
            eta,
            temperature,
            None if refiner is True else refiner or "none",
        )
        return torch.cat(list(self.batches(num_images, options, batch_size, progress)))

    def batches(
        self, num_images: int, options: SampleOptions, batch_size: int = 16, progress: bool = False
    ) -> Iterator[Tensor]:
        """Generate images 0 to N - 1 as `sample` does, each batch (B, 3, H, W) uint8 on the CPU."""
        if min(num_images, batch_size) < 1:
            raise InputError(
                "The number of images and the batch size must be at least 1, got"
                f" {num_images} and {batch_size}."
            )
        options = self.settle(options)
        total = num_images * (options.steps or 0)
        with tqdm(total=total, disable=not progress, desc="sampling") as bar:
            for first in range(0, num_images, batch_size):
                numbers = range(first, min(first + batch_size, num_images))
                yield self.generate(numbers, options, partial(_advance, bar, len(numbers))).cpu()

    @torch.inference_mode()
    def generate(
        self, numbers: Sequence[int], options: SampleOptions, on_step: OnStep | None = None
    ) -> Tensor:
        """Generate the images of these numbers as one batch.

        Args:
            numbers: B sample numbers; sample i depends on (seed, i) alone.
            options: how they are drawn; what they leave open is the model's own.
            on_step: called after each step.

        Returns:
            (B, 3, H, W) uint8 RGB on the model's device.

        Raises:
            InputError: as `settle`.
        """
        options = self.settle(options)
        training = self.training
        self.eval()
        try:
            z0 = draw(
                self.process,
                self.denoiser,
                self.latent_shape,
                generator=self._sample_streams(options, numbers),
                on_step=on_step,
                **options.given(),
            )
        finally:
            self.train(training)
        images = self.codec.decode(self.latent.to_codes(z0))
        refiner = self.refiner if options.refiner is None else options.refiner
        return refiner.to(self.device).refine(images) if isinstance(refiner, Refiner) else images

    def sample_paths(
        self, num_images: int, options: SampleOptions, frames: int | None = None
    ) -> Tensor:
        """Decode z_t along the way from noise to image (Scribano et al. 2023, figure 7).

        Args:
            num_images: B.
            options: how they are drawn: the last frames are `generate`'s images, unrefined.
            frames: F of each path, evenly spread over the steps, noise and image included; by
                default 11, or what the steps allow.

        Returns:
            (B, F, 3, H, W) uint8 RGB on the model's device.

        Raises:
            InputError: as `settle`, or fewer than 2 frames, or more than steps + 1.
        """
        options = self.settle(replace(options, refiner="none"))
        picks = frame_steps(frames, options.steps or 0)
        numbers = range(num_images)
        path = [self.process.prior(self.latent_shape, self._sample_streams(options, numbers))]
        self.generate(numbers, options, on_step=lambda step, z, _: path.append(z))
        decoded = [self.codec.decode(self.latent.to_codes(path[step])) for step in picks]
        return torch.stack(decoded, dim=1)

    def _sample_streams(self, options: SampleOptions, numbers: Sequence[int]) -> SampleStreams:
        return SampleStreams([(options.seed, number) for number in numbers], self.device)


def frame_steps(frames: int | None, steps: int) -> list[int]:
    """After how many of a path's steps each of its frames is taken, from 0 to steps.

    None is 11 frames, or what the steps allow.

    Raises:
        InputError: fewer than 2 frames, or more than steps + 1.
    """
    frames = min(_FRAMES, steps + 1) if frames is None else frames
    if not 2 <= frames <= steps + 1:
        raise InputError(f"A path of {steps} steps has from 2 to {steps + 1} frames, not {frames}.")
    return [round(i * steps / (frames - 1)) for i in range(frames)]


def _advance(bar: tqdm, count: int, *step: object) -> None:
    bar.update(count)
