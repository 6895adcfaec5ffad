"""Sampling of a diffusion model: one way from numbers and options to images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lit_mbldm.codecs.sizes import resized
from lit_mbldm.errors import InputError
from lit_mbldm.pictures import to_pil
from lit_mbldm.processes.base import Condition, Denoiser
from lit_mbldm.processes.given import Given
from lit_mbldm.processes.guidance import guided
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.samplers import OnStep, Sampler, draw
from lit_mbldm.training.labels import label_numbers
from lit_mbldm.training.options import SampleOptions, fresh_seed
from lit_mbldm.training.refiner import RefinerModule
from lit_mbldm.training.settle import SettlingModule

Wrap = Callable[[Denoiser], Denoiser]
_FRAMES = 11  # where nothing else is said


class SamplingModule(SettlingModule):
    """What generates images: a codec, its latent, a process and a denoiser."""

    def sample(
        self,
        num_images: int,
        steps: int | None = None,
        seed: int | None = 0,
        batch_size: int = 16,
        progress: bool = False,
        sampler: Sampler | None = None,
        eta: float | None = None,
        refiner: RefinerModule | bool = True,
        temperature: float | Literal["argmax"] | None = None,
        label: int | str | list[int | str] | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guide: "str | SamplingModule | None" = None,
        canvas: tuple[int, int] | None = None,
        size: tuple[int, int] | None = None,
        output: Literal["tensor", "pil"] = "tensor",
    ) -> Any:
        """Generate images; image i depends on (seed, i) alone, and on its label.

        None is the model's own setting, `sampling`, as in `lit-mbldm sample`, else the default.

        Args:
            num_images: N.
            steps: reverse steps, at most T; by default 50.
            seed: of the noise, one integer of Python, numpy or torch: equal numbers are one seed.
                None draws a fresh one, which a log line tells.
            batch_size: images made at once.
            progress: show a progress bar.
            sampler: "ddpm" (ancestral, the paper's, the default), "ddim" or "dpm++" (DPM-Solver++
                2M), which follow the expected z_0; a categorical model then draws its codewords at
                the last step. "consistency" noises each estimate anew, of a
                `ConsistencyDiffusion`.
            eta: of ddim, from 0 (no noise, the default) to 1.
            refiner: to pass the decoded images through; True is the one that came with the model,
                if any, False none.
            temperature: of the probabilities of a model of codes or bits at every step, by default
                1; 0 or "argmax" takes the most probable ones.
            label: a class of `class_names`, by name or number, or several that the images take in
                turn; by default all classes in turn.
            guidance: scale of guidance towards the label, by default 1, which is none.
            guidance_interval: of t/T, in which there is guidance; by default (0, 1).
            guide: an earlier or smaller model, or its name or path, to guide away from
                (autoguidance).
            canvas: (height, width) to draw at in pixels, multiples of the codec's patches; by
                default those that the model learned.
            size: (H, W) of the images in pixels, decoded from the same latents, at most 65,536 a
                side and 2^28 in all; by default the model's own. What a refiner has improved is
                interpolated.
            output: "tensor", or "pil" for a list of N Pillow images.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU, or N Pillow images.

        Raises:
            InputError: numbers out of range, a seed that is no integer, a label that the model
                does not know, or an option or a guide that is not for it.

        Example:
            >>> from lit_mbldm.zoo import load_pretrained
            >>> model = load_pretrained("eurosat-64")
            >>> model.sample(2, seed=0, steps=2, label="River", guidance=1.5).shape
            torch.Size([2, 3, 64, 64])
        """
        seed = fresh_seed() if seed is None else seed
        chosen = None if refiner is True else refiner or "none"
        how = (steps, seed, sampler, eta, temperature, chosen)
        options = SampleOptions(*how, label, guidance, guidance_interval, guide, canvas, size)
        images = torch.cat(list(self.batches(num_images, options, batch_size, progress)))
        return [*map(to_pil, images)] if output == "pil" else images

    def batches(
        self, num_images: int, options: SampleOptions, batch_size: int = 16, progress: bool = False
    ) -> Iterator[Tensor]:
        """Generate images 0 to N - 1 as `sample` does, each batch (B, 3, H, W) uint8 on the CPU."""
        options = self.settle(options)
        for z0, streams in self.latents(num_images, options, batch_size, progress):
            yield self.decode(z0, options, streams).cpu()

    def latents(
        self, num_images: int, options: SampleOptions, batch_size: int = 16, progress: bool = False
    ) -> Iterator[tuple[Tensor, SampleStreams]]:
        """Draw z_0 of images 0 to N - 1, each batch (B, C, h, w) and its streams, for `decode`."""
        options = self.settle(options)
        total = num_images * (len(self.process.time_grid(options.steps or 0)) - 1)
        with tqdm(total=total, disable=not progress, desc="sampling") as bar:
            for first in range(0, num_images, batch_size):
                numbers = range(first, min(first + batch_size, num_images))
                streams = self.sample_streams(options, numbers)
                condition = self.sample_condition(numbers, options)
                told = partial(lambda count, *_: bar.update(count), len(numbers))
                yield self.draw_latents(options, streams, condition, on_step=told), streams

    def generate(
        self,
        numbers: Sequence[int],
        options: SampleOptions,
        *,
        given: Given | None = None,
        condition: Condition = None,
        streams: SampleStreams | None = None,
        wrap: Wrap | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Generate the images of B sample numbers as one batch.

        Args:
            numbers: B of them; each has its random stream, and its label where there are classes.
            options: what they leave open is the model's own.
            given: a latent to start from.
            condition: what the denoiser is told, B rows, in place of the numbers' labels.
            streams: B of them, in place of the numbers' own.
            wrap: what the guided denoiser goes through, such as `guidance.mixed`.
            on_step: called after each step.

        Returns:
            (B, 3, H, W) uint8 RGB on the device; raises InputError as `settle`.
        """
        options = self.settle(options)
        streams = streams or self.sample_streams(options, numbers)
        if condition is None:
            condition = self.sample_condition(numbers, options)
        z0 = self.draw_latents(options, streams, condition, given, wrap, on_step)
        return self.decode(z0, options, streams)

    @torch.inference_mode()
    def draw_latents(
        self,
        options: SampleOptions,
        streams: SampleStreams,
        condition: Condition,
        given: Given | None = None,
        wrap: Wrap | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw z_0, (B, C, h, w) on the device, by settled options; arguments as `generate`."""
        assert options.steps is not None and options.sampler is not None  # noqa: PT018
        scale = 1.0 if options.guidance is None else options.guidance
        interval, guide = options.guidance_interval or (0.0, 1.0), None
        if isinstance(options.guide, SettlingModule):
            guide = options.guide.to(self.device).eval().denoiser
        denoiser = guided(self.denoiser, scale, interval, guide)
        training = self.training
        self.eval()
        try:
            return draw(
                self.process,
                denoiser if wrap is None else wrap(denoiser),
                self.shape_on(options.canvas),
                options.steps,
                streams,
                options.sampler,
                options.eta or 0.0,
                1.0 if options.temperature is None else float(options.temperature),
                condition,
                on_step,
                given,
            )
        finally:
            self.train(training)

    @torch.inference_mode()
    def decode(self, z0: Tensor, options: SampleOptions, streams: SampleStreams) -> Tensor:
        """Decode z_0 (B, C, h, w), and refine, to (B, 3, H, W) uint8 RGB on the device.

        The options are settled ones, of which size and refiner count here; the streams are those
        that z_0 was drawn with.
        """
        refiner = self.refiner if options.refiner is None else options.refiner
        if not isinstance(refiner, RefinerModule):
            return self.latent.decode(z0, options.size)
        decoded = self.latent.decode(z0)
        refined = refiner.to(self.device).refine(decoded, streams.branch(0))
        return resized(refined, options.size)

    def sample_condition(self, numbers: Sequence[int], options: SampleOptions) -> Condition:
        """The labels (B,) int64 of the images of these numbers, or nothing without classes."""
        if not self.class_names:
            return None
        labels = torch.tensor(label_numbers(self.class_names, options.label), device=self.device)
        return labels[torch.tensor(numbers, device=self.device) % len(labels)]

    def sample_paths(
        self, num_images: int, options: SampleOptions, frames: int | None = None
    ) -> Tensor:
        """Decode z_t along the way from noise to image (Scribano et al. 2023, figure 7).

        The F frames of each of B paths are those of `frame_steps`; the last are `generate`'s
        images, unrefined.

        Returns:
            (B, F, 3, H, W) uint8 RGB on the device; raises InputError as `settle` or `frame_steps`.
        """
        options = self.settle(replace(options, refiner="none"))
        times = self.process.time_grid(options.steps or 0, options.sampler or "ddpm")
        picks = frame_steps(frames, len(times) - 1)
        numbers, shape = range(num_images), self.shape_on(options.canvas)
        first, again = (self.sample_streams(options, numbers) for _ in range(2))
        path = [self.process.prior(self.process.shape_at(shape, times[0]), first)]
        condition = self.sample_condition(numbers, options)  # equal streams draw the same prior
        self.draw_latents(options, again, condition, on_step=lambda _, z, __: path.append(z))
        full = [self.process.carry(path[step], times[step], 0) for step in picks]
        return torch.stack([self.latent.decode(z, options.size) for z in full], dim=1)

    def sample_streams(self, options: SampleOptions, numbers: Sequence[int]) -> SampleStreams:
        """The random streams of these sample numbers."""
        return SampleStreams([(options.seed, number) for number in numbers], self.device)


def frame_steps(frames: int | None, steps: int) -> list[int]:
    """After how many of a path's steps each of its frames is taken, evenly from 0 to steps.

    By default 11, or what the steps allow; raises InputError for fewer than 2, or more than that.
    """
    frames = min(_FRAMES, steps + 1) if frames is None else frames
    if not 2 <= frames <= steps + 1:
        raise InputError(f"A path of {steps} steps has from 2 to {steps + 1} frames, not {frames}.")
    return [round(i * steps / (frames - 1)) for i in range(frames)]
