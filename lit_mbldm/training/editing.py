"""Editing of images by a diffusion model: inpainting, variations, interpolation, outpainting.

B images of H×W pixels, h×w positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mbldm.errors import InputError, check_choice, check_numbers
from lit_mbldm.pictures import Images
from lit_mbldm.processes.base import Condition
from lit_mbldm.processes.given import Given
from lit_mbldm.processes.guidance import NO_LABEL, mixed
from lit_mbldm.processes.randomness import BlendedStreams
from lit_mbldm.training.masks import join, on_canvas, read_images, read_mask
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.sampling import SamplingModule

Between = Literal["seeds", "images", "labels"]


class EditingModule(SamplingModule):
    """What edits images; all of it is sampling that is given a latent, or that is blended.

    The methods take the settings of `SampleOptions` by name, such as steps, seed, sampler, label
    and guidance, of which the model's own are the default. Image i depends on (seed, i) and on
    what is given alone. Without a label the model is told none. Images are what
    `lit_mbldm.pictures.to_batch` takes, of any size that codec and denoiser allow from the model's
    own on.
    """

    def inpaint(
        self,
        images: Images,
        mask: Any,
        num_images: int = 1,
        strength: float = 1.0,
        resamplings: int = 1,
        batch_size: int = 16,
        **settings: Any,
    ) -> Tensor:
        """Draw the masked pixels again; the others are returned as they are.

        Every position of the latent whose support the mask touches is drawn again. What comes out
        is led to meet the kept pixels over a patch's side.

        Args:
            images: B of them.
            mask: (H, W) or (B, H, W) bool, True for what is drawn again.
            num_images: results N of each image.
            strength: t/T to start at; below 1 what was there shows through.
            resamplings: times that each step is taken, for what is new to suit what stays; cost
                grows alike.
            batch_size: images made at once.
            **settings: of `SampleOptions`.

        Returns:
            (B·N, 3, H, W) uint8 RGB on the CPU, the results of an image one after another.

        Raises:
            InputError: a mask of another size or type, an image that does not fit, or settings out
                of range.
        """
        if settings.get("size") is not None:
            raise InputError("What stays has the image's own size: leave size away.")
        pixels = self._pixels(images)
        masks = read_mask(mask, pixels)
        again = self.codec.touched(masks)

        def given(z0: Tensor, rows: Tensor) -> Given:
            return Given(z0, strength, again[rows].to(z0.device), resamplings)

        drawn = self._from_images(pixels, num_images, batch_size, settings, given)
        pixels, masks = (one.repeat_interleave(num_images, 0) for one in (pixels, masks))
        return join(drawn, pixels, masks, self.codec.patch_size)

    def vary(
        self,
        images: Images,
        strength: float,
        num_images: int = 1,
        batch_size: int = 16,
        **settings: Any,
    ) -> Tensor:
        """Draw variations: noise each image's latent to t/T = strength, and sample from there.

        Args:
            images: B of them.
            strength: 0 is the image after the codec, 1 a sample of the same seed and label.
            num_images: variations N of each image.
            batch_size: images made at once.
            **settings: of `SampleOptions`.

        Returns:
            (B·N, 3, H, W) uint8 RGB on the CPU, the variations of an image one after another.

        Raises:
            InputError: an image that does not fit, or settings out of range.
        """
        pixels = self._pixels(images)
        return self._from_images(
            pixels, num_images, batch_size, settings, lambda z0, _: Given(z0, strength)
        )

    def outpaint(
        self,
        images: Images,
        canvas: tuple[int, int],
        num_images: int = 1,
        resamplings: int = 1,
        batch_size: int = 16,
        **settings: Any,
    ) -> Tensor:
        """Draw what lies around images, which are put in the middle of a larger canvas.

        Args:
            images: B of them.
            canvas: its (height, width) in pixels, multiples of the codec's patches.
            num_images: results N of each image.
            resamplings: as of `inpaint`.
            batch_size: images made at once.
            **settings: of `SampleOptions`.

        Returns:
            (B·N, 3, *canvas) uint8 RGB on the CPU.

        Raises:
            InputError: a canvas that is smaller, or that codec or denoiser are not for.
        """
        pixels, mask = on_canvas(read_images(images), canvas, self.codec.patch_size)
        return self.inpaint(pixels, mask, num_images, 1.0, resamplings, batch_size, **settings)

    def interpolate(
        self,
        a: Any,
        b: Any,
        num_images: int = 8,
        between: Between = "seeds",
        strength: float = 0.5,
        batch_size: int = 16,
        **settings: Any,
    ) -> Tensor:
        """Draw a row of images from a to b, which are its ends.

        Between seeds all random numbers change gradually, those of sample 0 of each. Between images
        it is variations of what lies between their latents, between labels predictions are blended;
        both with the random numbers of sample 0.

        Args:
            a: a seed, an image or a label, by name or number.
            b: another one.
            num_images: N of them.
            between: what a and b are: "seeds", "images" or "labels".
            strength: of the variations between images.
            batch_size: images made at once.
            **settings: of `SampleOptions`.

        Returns:
            (N, 3, H, W) uint8 RGB on the CPU.

        Raises:
            InputError: fewer than two images, ends that are not such, or settings out of range.
        """
        check_numbers(2, num_images=num_images)
        check_choice(Between, between=between)
        if between == "images":
            ends = self._pixels(torch.cat([read_images(a), read_images(b)]))
            settings["canvas"] = tuple(ends.shape[2:])
        elif between == "labels":
            settings["label"] = [a, b]
        options = self.settle(SampleOptions(**settings))
        parts = []
        for weights in torch.linspace(0, 1, num_images, device=self.device).split(batch_size):
            numbers, course = [0] * len(weights), dict[str, Any]()
            if between == "seeds":
                both = [replace(options, seed=seed) for seed in (a, b)]
                one, other = (self.sample_streams(of_seed, numbers) for of_seed in both)
                course["streams"] = BlendedStreams(one, other, weights)
            elif between == "images":
                first, second = self._latents(ends)
                z0 = torch.lerp(first, second, weights.view(-1, 1, 1, 1))
                course["given"] = Given(z0, strength)
            else:
                second_label = self._told([1] * len(weights), options)
                course["wrap"] = partial(mixed, condition=second_label, weights=weights)
            told = self._told(numbers, options)
            parts.append(self.generate(numbers, options, condition=told, **course).cpu())
        return torch.cat(parts)

    def _from_images(
        self,
        pixels: Tensor,
        num_images: int,
        batch_size: int,
        settings: dict[str, Any],
        given: Callable[[Tensor, Tensor], Given],
    ) -> Tensor:
        """Draw N results of each image from what `given` makes of latents and the images' rows."""
        options = self.settle(SampleOptions(**settings, canvas=(pixels.shape[2], pixels.shape[3])))
        rows = torch.arange(len(pixels)).repeat_interleave(num_images)
        parts = []
        for numbers in torch.arange(len(rows)).split(batch_size):
            start = given(self._latents(pixels[rows[numbers]]), rows[numbers])
            told = self._told(numbers.tolist(), options)
            drawn = self.generate(numbers.tolist(), options, given=start, condition=told)
            parts.append(drawn.cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def _latents(self, pixels: Tensor) -> Tensor:
        """z_0 (B, C, h, w) of images on the model's device."""
        pixels = pixels.to(self.device)
        return self.latent.to_latent(self.codec.encode(pixels), pixels)

    def _told(self, numbers: Sequence[int], options: SampleOptions) -> Condition:
        """The labels of these numbers, (B,); none where the options name none."""
        if options.label is not None or not self.class_names:
            return self.sample_condition(numbers, options)
        if not self.label_dropout:
            raise InputError(
                "The model was trained without label_dropout and has to be told a label: give the"
                f" image's, such as {self.class_names[0]}."
            )
        return torch.full((len(numbers),), NO_LABEL, device=self.device)

    def _pixels(self, images: Images) -> Tensor:
        """Images of at least the model's size, (B, 3, H, W) uint8 on the CPU."""
        pixels = read_images(images)
        sides = [self.codec.patch_size * count for count in self.latent_shape[1:]]
        if any(found < least for found, least in zip(pixels.shape[2:], sides, strict=True)):
            raise InputError(
                f"Expected images of at least {sides[0]}×{sides[1]} pixels, which the model"
                f" learned, got {pixels.shape[2]}×{pixels.shape[3]}: enlarge them, or outpaint"
                " them to that size."
            )
        return pixels
