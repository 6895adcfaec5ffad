"""What the page's buttons do with a model: pictures, and a line of facts on them.

`settings` are those of `SampleOptions` that the page's controls set.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lit_mbldm.codecs.network_codec import NetworkCodec
from lit_mbldm.demo.photos import painted, read_photo, square, whole_patches
from lit_mbldm.entries.entry import indexed_codes
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import psnr
from lit_mbldm.metrics.nearest import DescribedImages
from lit_mbldm.pictures import table, to_batch, to_pil
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.options import SampleOptions

_FRAMES = 25  # of a way from noise, at most
_AT_ONCE = 64  # training images decoded
_STEPS = (5, 10, 25, 50)
# what has a row in a grid of steps
_ROWS = {"temperature": (0.2, 0.4, 0.6, 0.8, 1.0), "guidance": (1.0, 1.5, 2.0, 3.0)}


class Answer(NamedTuple):
    """Pictures, and what is said of them."""

    pictures: list[Image.Image]
    facts: str


class Actions:
    """The buttons of a model's page; they raise InputError for what cannot be done.

    Args:
        model: a diffusion model.

    Attributes:
        side: of its images in pixels.
        guided: whether there is guidance towards labels.
        indexed: whether the entry brought training images to compare with.
        row: what has a row in `grid`, temperature or else guidance; None where it takes neither.
    """

    def __init__(self, model: DiffusionModule) -> None:
        self.model = model
        self.side = model.codec.patch_size * model.latent_shape[1]
        self.indexed = indexed_codes(model) is not None
        self.guided = bool(model.class_names and model.label_dropout)
        steered = "guidance" if self.guided else None
        self.row = "temperature" if model.process.has_temperature else steered

    def draw(self, count: int, **settings: Any) -> Answer:
        """Samples; without a label the classes take turns."""
        return self._answer(self.model.sample, count, **settings)

    def vary(self, picture: Any, strength: float, count: int, **settings: Any) -> Answer:
        """Variations of a picture."""
        return self._answer(self.model.vary, picture, strength, count, **settings)

    def path(self, **settings: Any) -> Answer:
        """Frames of one sample's way from noise to image."""
        options = self.model.settle(SampleOptions(**settings))
        frames = min(_FRAMES, (options.steps or 0) + 1)
        return self._answer(lambda: self.model.sample_paths(1, options, frames)[0])

    def walk(
        self, a: Any, b: Any, count: int, between: Literal["seeds", "labels"], **settings: Any
    ) -> Answer:
        """A row of images from one seed or label to another."""
        return self._answer(self.model.interpolate, a, b, count, between, **settings)

    def grid(self, **settings: Any) -> Answer:
        """One sheet: a sample after fewer and more steps, a row a temperature or guidance."""
        assert self.row is not None
        options = self.model.settle(SampleOptions(**settings))
        steps = [few for few in _STEPS if few <= self.model.process.num_timesteps]
        told: list[dict[str, Any]] = [
            {self.row: value, "steps": few} for value in _ROWS[self.row] for few in steps
        ]

        def make() -> Tensor:
            return torch.cat([self.model.generate([0], replace(options, **one)) for one in told])

        pictures, facts = self._answer(make)
        sheet = to_batch(pictures).unflatten(0, (-1, len(steps)))
        rows = [f"{self.row} {value:g}" for value in _ROWS[self.row]]
        return Answer([table(sheet, rows, [f"{few} steps" for few in steps])], facts)

    def inpaint(
        self,
        picture: Image.Image | None,
        strokes: dict[str, Any] | None,
        resamplings: int,
        count: int,
        **settings: Any,
    ) -> Answer:
        """A picture of the model's size, drawn again under strokes: an editor's `layers`."""
        if picture is None:
            raise InputError("Expected a picture, got none: upload one, or click one in Gallery.")
        mask = painted((strokes or {}).get("layers") or [], self.side)
        more = {"resamplings": resamplings, **settings}
        return self._answer(self.model.inpaint, picture, mask, count, **more)

    @cached_property
    def _training(self) -> tuple[Tensor, DescribedImages]:
        """Codes of training images, and these as they are compared; decoding them takes seconds."""
        codes = indexed_codes(self.model)
        assert codes is not None
        parts = (codes[i : i + _AT_ONCE] for i in range(0, len(codes), _AT_ONCE))
        decoded = (self.model.codec.decode(part.to(self.model.device)) for part in parts)
        return codes, DescribedImages(decoded)

    def nearest(self, picture: Image.Image) -> Answer:
        """A picture and the nearest of the training images that the entry keeps."""
        codes, training = self._training
        place, ratio = training.nearest(to_batch(picture).to(self.model.device))
        found = self.model.codec.decode(codes[place.cpu()].to(self.model.device))[0]
        facts = (
            f"The nearest of {len(codes):,} training images, as the codec keeps them. It lies at"
            f" {float(ratio):.2f} of the distance of the next ones: a copy lies near 0."
        )
        return Answer([picture, to_pil(found)], facts)

    def fit(self, path: str | None) -> Image.Image:
        """An uploaded photograph's middle at the model's size."""
        return square(read_photo(path), self.side)

    def compress(self, path: str | None) -> tuple[dict[str, Image.Image], str]:
        """An uploaded photograph, and what codec, decoder and refiner return of it, by name."""
        codec, refiner = self.model.codec, self.model.refiner
        photo = to_batch(whole_patches(read_photo(path), codec.patch_size)).to(self.model.device)
        start = time.monotonic()
        codes = codec.encode(photo)
        plain = codec
        while isinstance(plain, NetworkCodec):
            plain = plain.codec
        shown = {"codec": plain.decode(codes)}
        if plain is not codec:
            shown["decoder"] = codec.decode(codes)
        if refiner is not None:
            shown["refiner"] = refiner.refine([*shown.values()][-1])
        seconds = time.monotonic() - start
        quality = [f"{name} {float(psnr(photo, one)):.1f} dB" for name, one in shown.items()]
        H, W = photo.shape[2:]
        rate = codec.bits_per_pixel
        size = f"{H}×{W} pixels, {rate * H * W:,.0f} bits in the codec ({rate:g} a pixel)"
        facts = f"{size}, in {seconds:.1f} s. PSNR: {', '.join(quality)}."
        shown = {"original": photo, **shown}
        return {name: to_pil(image[0]) for name, image in shown.items()}, facts

    def _answer(self, make: Callable[..., Tensor], *given: Any, **settings: Any) -> Answer:
        start = time.monotonic()
        images = make(*given, **settings)
        pictures, seconds = [to_pil(image) for image in images], time.monotonic() - start
        several = f"{len(images)} picture{'s' if len(images) > 1 else ''}"
        H, W = images.shape[2:]
        return Answer(pictures, f"{several} of {H}×{W} pixels, in {seconds:.1f} s.")
