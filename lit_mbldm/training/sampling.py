"""Sampling of a diffusion model: one way from numbers and options to images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.entries.about import about_module
from lit_mbldm.errors import InputError
from lit_mbldm.processes.base import Condition, Process
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import OnStep, Sampler, check_sampler, draw
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.options import SampleOptions, fresh_seed
from lit_mbldm.training.refiner import Refiner, load_refiner

_STEPS, _FRAMES = 50, 11  # where nothing else is said


class SamplingModule(CodecModule):
    """What generates images: a codec, its latent, a process and a denoiser."""

    denoiser: nn.Module
    process: Process
    latent: Latent
    latent_shape: tuple[int, ...]  # of z_0, (C, h, w)
    test_options = SampleOptions()  # of test and predict; `set_test_options` sets it
    _refiner: tuple[Refiner, ...] = ()  # no submodule: neither trained nor saved with it

    @property
    def refiner(self) -> Refiner | None:
        """What samples pass through unless told otherwise."""
        return self._refiner[0] if self._refiner else None

    def use_refiner(self, refiner: Refiner) -> None:
        """Pass samples through a refiner unless told otherwise.

        Raises:
            InputError: no refiner, or one of another codec's images.
        """
        self._refiner = (self._checked(refiner),)

    def _checked(self, refiner: nn.Module) -> Refiner:
        if not isinstance(refiner, Refiner):
            raise InputError(f"Expected a Refiner, got a {type(refiner).__name__}.")
        expected, found = self.codec.image_fingerprint, refiner.codec.image_fingerprint
        if found != expected:
            raise InputError(
                "The refiner was trained on images of another codec: expected fingerprint"
                f" {expected}, got {found}. Train one on images of {self.codec.quantizer}."
            )
        return refiner

    @property
    def sampling(self) -> SampleOptions:
        """The model's own options, of its entry, its checkpoint or the config's `SampleImages`."""
        return SampleOptions.read(about_module(self).sampling)

    @sampling.setter
    def sampling(self, options: SampleOptions) -> None:
        vars(self)["about"] = replace(about_module(self), sampling=options.given())

    def set_test_options(self, options: SampleOptions) -> None:
        """Have test and predict draw by these options; raises InputError as `settle`.

        The refiner is loaded now; what is left open may come with a checkpoint later.
        """
        self.test_options = replace(options, refiner=self.settle(options).refiner)

    def settle(self, options: SampleOptions) -> SampleOptions:
        """Complete options by the model's own, check them, and load the refiner they name.

        Raises:
            InputError: an option that the model does not take or out of range, or a refiner that
                does not load or is another codec's.
        """
        steps = min(_STEPS, self.process.num_timesteps)
        options = options.over(self.sampling).over(SampleOptions(steps, sampler="ddpm"))
        assert options.steps is not None and options.sampler is not None  # noqa: PT018
        check_sampler(self.process, options.sampler, options.eta or 0.0)
        self.process.time_grid(options.steps)
        if options.temperature is not None and not self.process.has_temperature:
            raise InputError(f"A {type(self).__name__} takes no temperature: leave it out.")
        refiner = options.refiner
        if refiner is None or refiner == "none":
            return options
        loaded = load_refiner(refiner) if isinstance(refiner, str) else refiner
        return replace(options, refiner=self._checked(loaded))

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
            temperature: of a categorical model's softmax at every step, by default 1; 0 or
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
        seed = fresh_seed() if seed is None else seed
        chosen = None if refiner is True else refiner or "none"
        options = SampleOptions(steps, seed, sampler, eta, temperature, chosen)
        return torch.cat(list(self.batches(num_images, options, batch_size, progress)))

    def batches(
        self, num_images: int, options: SampleOptions, batch_size: int = 16, progress: bool = False
    ) -> Iterator[Tensor]:
        """Generate images 0 to N - 1 as `sample` does, each batch (B, 3, H, W) uint8 on the CPU."""
        options = self.settle(options)
        total = num_images * (len(self.process.time_grid(options.steps or 0)) - 1)
        with tqdm(total=total, disable=not progress, desc="sampling") as bar:
            for first in range(0, num_images, batch_size):
                numbers = range(first, min(first + batch_size, num_images))
                yield self.generate(
                    numbers, options, partial(lambda count, *_: bar.update(count), len(numbers))
                ).cpu()

    @torch.inference_mode()
    def generate(
        self, numbers: Sequence[int], options: SampleOptions, on_step: OnStep | None = None
    ) -> Tensor:
        """Generate the images of B sample numbers as one batch, (B, 3, H, W) uint8 on the device.

        What the options leave open is the model's own. Raises InputError as `settle`.
        """
        options = self.settle(options)
        training = self.training
        self.eval()
        try:
            z0 = draw(
                self.process,
                self.denoiser,
                self.latent_shape,
                streams=self._sample_streams(options, numbers),
                condition=self.sample_condition(numbers, options),
                on_step=on_step,
                **options.given(),
            )
        finally:
            self.train(training)
        images = self.latent.decode(z0)
        refiner = self.refiner if options.refiner is None else options.refiner
        return refiner.to(self.device).refine(images) if isinstance(refiner, Refiner) else images

    def sample_condition(self, numbers: Sequence[int], options: SampleOptions) -> Condition:
        """What the denoiser is told while it generates the images of these numbers, B rows."""
        return None

    def sample_paths(
        self, num_images: int, options: SampleOptions, frames: int | None = None
    ) -> Tensor:
        """Decode z_t along the way from noise to image (Scribano et al. 2023, figure 7).

        The F frames of each of B paths are those of `frame_steps`; the last are `generate`'s
        images, unrefined.

        Returns:
            (B, F, 3, H, W) uint8 RGB on the model's device.

        Raises:
            InputError: as `settle`, or as `frame_steps`.
        """
        options = self.settle(replace(options, refiner="none"))
        times = self.process.time_grid(options.steps or 0)
        picks = frame_steps(frames, len(times) - 1)
        numbers, streams = range(num_images), self._sample_streams(options, range(num_images))
        path = [self.process.prior(self.process.shape_at(self.latent_shape, times[0]), streams)]
        self.generate(numbers, options, on_step=lambda step, z, _: path.append(z))
        full = [self.process.carry(path[step], 0) for step in picks]
        return torch.stack([self.latent.decode(z) for z in full], dim=1)

    def _sample_streams(self, options: SampleOptions, numbers: Sequence[int]) -> SampleStreams:
        return SampleStreams([(options.seed, number) for number in numbers], self.device)


def frame_steps(frames: int | None, steps: int) -> list[int]:
    """After how many of a path's steps each of its frames is taken, evenly from 0 to steps.

    By default 11, or what the steps allow; raises InputError for fewer than 2, or more than that.
    """
    frames = min(_FRAMES, steps + 1) if frames is None else frames
    if not 2 <= frames <= steps + 1:
        raise InputError(f"A path of {steps} steps has from 2 to {steps + 1} frames, not {frames}.")
    return [round(i * steps / (frames - 1)) for i in range(frames)]
