"""Super-resolution: a diffusion model that draws the latent of a larger image.

B images, H×W pixels, M channels of what the denoiser is told.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from lit_mbldm.codecs import ImageCodec
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.codecs.sizes import check_enlarged, pad_to_multiple, resize, resized
from lit_mbldm.errors import InputError
from lit_mbldm.pictures import Images
from lit_mbldm.processes.base import Condition, Process
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.processes.windows import spans, windowed
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.masks import read_images
from lit_mbldm.training.module import Decay, OptimizerName
from lit_mbldm.training.options import SampleOptions


class Upscaler(DiffusionModule):
    """A diffusion model that is told a smaller image, and draws the latent of the larger one.

    In training the image itself is made smaller, antialiased, by a random scale, and interpolated
    to its first size; the denoiser sees the pixels of each patch as the channels of a map. Larger
    images than those of training are drawn in overlapping windows.

    Source: Kim & Kim 2024, arXiv 2403.10255, section 3.2, with any process and latent.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        denoiser: a network that takes a map, a `UNet` or a `TokenTransformer`.
        process: how the latent is noised, one that keeps its shape.
        image_size: height and width of the images in training, and of a window.
        max_scale: scales are uniform from 1 to this one.
        learning_rate: of the optimiser.
        betas: of Adam and AdamW.
        warmup_steps: over which the learning rate rises linearly from zero.
        latent: codes as numbers; by default their indices.
        optimizer: adam, adamw or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.

    Raises:
        InputError: parts that do not fit each other, or a max_scale that is none.
    """

    def __init__(
        self,
        codec: str | ImageCodec,
        denoiser: nn.Module,
        process: Process,
        image_size: int,
        max_scale: float = 4.0,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        latent: Latent | None = None,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        if not 1 < max_scale <= image_size:
            raise InputError(
                f"Expected a max_scale above 1 that leaves pixels of image_size {image_size}, got"
                f" {max_scale}."
            )
        super().__init__(
            codec, denoiser, process, image_size, learning_rate, betas, warmup_steps,
            latent=latent, optimizer=optimizer, decay=decay, class_names=[],
        )  # fmt: skip
        if len(self.process.shapes(self.latent_shape)) > 1 or not hasattr(denoiser, "map_channels"):
            raise InputError(
                "An Upscaler needs a process that keeps the latent's shape and a denoiser that"
                f" takes a map, got a {type(process).__name__} and a {type(denoiser).__name__}."
            )
        self.max_scale = max_scale

    @property
    def map_channels(self) -> int:
        """M: red, green and blue of each pixel of a patch."""
        return 3 * self.codec.patch_size**2

    def batch_condition(self, batch: dict[str, Tensor], streams: SampleStreams) -> Condition:
        """The map (B, M, h, w) of a batch's images, made smaller by a random scale each."""
        images = self.images_of(batch)
        # a branch: times and noise are those of a model without condition
        scales = 1 + (self.max_scale - 1) * streams.branch(-1).uniform(())
        pairs = zip(images.split(1), scales.tolist(), strict=True)
        return self._map(torch.cat([self._blurred(image, scale) for image, scale in pairs]))

    def _blurred(self, images: Tensor, scale: float) -> Tensor:
        """Images (B, 3, H, W) uint8 made smaller and interpolated to their size again, float."""
        H, W = images.shape[2:]
        small = (max(1, round(H / scale)), max(1, round(W / scale)))
        return resize(resized(images, small).float(), (H, W))

    def _map(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) float in [0, 255] as (B, M, h, w), in [-1, 1]."""
        return F.pixel_unshuffle(images / 127.5 - 1, self.codec.patch_size)

    def sample_condition(self, numbers: Sequence[int], options: SampleOptions) -> Condition:
        """Refuse to draw without an image."""
        raise InputError(
            "An Upscaler draws larger images of small ones, and nothing without: use `lit-mbldm"
            " upscale IMAGE --model MODEL`, or model.upscale(images, size)."
        )

    def upscale(
        self, images: Images, size: tuple[int, int], progress: bool = False, **settings: Any
    ) -> Tensor:
        """Draw larger images; image i depends on (seed, i) and on what it is drawn of alone.

        Beyond `max_scale` times the image, the codec's decoder enlarges what was drawn.

        Args:
            images: B of them, all of one size, as `lit_mbldm.pictures.to_batch` takes them.
            size: (H', W') in pixels, at least the images' own.
            progress: show a bar over the windows of all steps.
            **settings: of `SampleOptions`, such as steps, seed and sampler.

        Returns:
            (B, 3, H', W') uint8 RGB on the CPU.

        Raises:
            InputError: what are no images, a smaller or too large size, or settings out of range.
        """
        pixels = read_images(images)
        check_enlarged((pixels.shape[2], pixels.shape[3]), size)
        # drawn is as much of the size as was learned, in whole patches
        height, width = (
            min(side, round(self.max_scale * small))
            for side, small in zip(size, pixels.shape[2:], strict=True)
        )
        base = resize(pixels.to(self.device).float(), (height, width))
        base = pad_to_multiple(base, self.codec.patch_size)
        H, W = base.shape[2:]
        options = self.settle(SampleOptions(**settings, canvas=(H, W)))
        streams = self.sample_streams(options, range(len(pixels)))
        side = min(self.latent_shape[1:])
        overlap = side // 4
        count = len(spans(H // self.codec.patch_size, side, overlap))
        count *= len(spans(W // self.codec.patch_size, side, overlap))
        total = count * (len(self.process.time_grid(options.steps or 0)) - 1)
        with tqdm(total=total, desc="upscaling", unit="window", disable=not progress) as bar:
            wrap = partial(windowed, side=side, overlap=overlap, on_window=bar.update)
            z0 = self.draw_latents(options, streams, self._map(base), wrap=wrap)
        whole = (round(H * size[0] / height), round(W * size[1] / width))
        decoded = self.decode(z0, replace(options, size=whole), streams)
        return decoded[:, :, : size[0], : size[1]].cpu()
