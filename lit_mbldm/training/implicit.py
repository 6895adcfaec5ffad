"""Training of the implicit decoder on crops of large images at random scales.

B images, H×W pixels as encoded, H'×W' pixels as they are, S code channels.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lit_mbldm.codecs import ImageCodec, ImplicitCodec, VectorQuantizedCodec
from lit_mbldm.codecs.implicit import code_numbers
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.sizes import resize, resized
from lit_mbldm.denoisers.polynomial import Grid
from lit_mbldm.errors import InputError, check_numbers
from lit_mbldm.metrics.codec_quality import psnr
from lit_mbldm.parallel.ranks import is_first, sum_ranks
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.module import CodecModule, Decay, OptimizerName

_MEASURED = (1.5, 2.0, 3.0, 4.0)  # scales of validation, those that are trained
_FITTED, _WINDOW = 32, 32  # batches that the filter is fitted to, and their window


class ImplicitDecoder(CodecModule):
    """A network that draws a codec's images larger; its checkpoints load as an `ImplicitCodec`.

    Before the first step the network's linear filter is found by least squares. Each step takes one
    scale at random: crops of the images are made smaller by it, antialiased, and go through the
    codec, and the network learns to bring them back to what they were. The loss is L1 over a window
    of them. Source: Kim & Kim 2024, arXiv 2403.10255, section 3.1.

    Args:
        codec: a codec with codebooks, or its name or path for `load_pretrained`; with a learned
            decoder, if any.
        network: an `ImplicitNetwork`.
        low_size: side of the crops when they are encoded, a multiple of the codec's patch size.
        max_scale: times that, the greatest side of a crop; scales are uniform from 1.
        drawn_size: side of the window that is drawn of a crop, of all where that is smaller.
        learning_rate: of the optimiser.
        betas: of Adam.
        warmup_steps: over which the learning rate rises linearly from zero.
        optimizer: adam or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.

    Raises:
        InputError: sizes that do not fit, or a codec that has an implicit decoder.
    """

    network: Any

    def __init__(
        self,
        codec: str | ImageCodec,
        network: nn.Module,
        low_size: int = 64,
        max_scale: float = 4.0,
        drawn_size: int = 128,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
    ) -> None:
        super().__init__(codec, learning_rate, betas, warmup_steps, optimizer, decay)
        self.codec.latent_shape(low_size, low_size)
        check_numbers(1, drawn_size=drawn_size)
        if max_scale <= 1:
            raise InputError(f"Expected a max_scale above 1, got {max_scale}.")
        self.low_size = low_size
        self.max_scale = max_scale
        self.drawn_size = drawn_size
        # makes place for the codec's numbers in a copy, and says whether the two fit
        fitted = ImplicitCodec(self.codec, network).network
        self.network = network
        self.network.set_code_channels(fitted.code_channels)
        self.train()

    def trained(self) -> ImplicitCodec:
        """The codec, with a copy of the network."""
        return ImplicitCodec(self.codec, self.network)

    def on_fit_start(self) -> None:
        """Find a new network's linear filter by least squares, on crops as of the first epoch.

        Raises InputError for a new network, and data without a data module.
        """
        super().on_fit_start()
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.trainer.ckpt_path or self.network.filter.kernels.weight.any():
            return
        if data is None:
            raise InputError(
                "A new network's filter is found on a data module's images: fit with one."
            )
        loader, moments = data.train_dataloader(), torch.zeros(())
        count = min(len(loader), _FITTED)
        for batch in tqdm(islice(loader, count), "fitting", count, disable=not is_first()):
            moved = data.transfer_batch_to_device(batch, self.device, 0)
            moments = moments + self.moments(moved, self.training_key()).cpu()
        self.network.filter.fit(sum_ranks(moments, self.device))

    @torch.no_grad()
    def moments(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """What the filter's `fit` needs of a batch, as of `loss`, in a smaller window."""
        images, window = self.crops(batch, key, _WINDOW)
        coded = self.encode(images)
        missing = (images / 255 - coded.base)[:, :, *window]
        grids = [Grid(self.low_size, images.shape[2], part.start, part.stop) for part in window]
        with full_float32(images.device):
            return self.network.filter.moments(coded.decoded, missing, *grids)

    def loss(self, batch: dict[str, Tensor], key: tuple[int, ...]) -> Tensor:
        """L1, on values in [0, 1], of images drawn at a scale that is the same for the batch.

        Of a batch of `images`, (B, 3, H', W') uint8 RGB, and `index`, (B,) int64; `key` is of scale
        and crops.
        """
        images, window = self.crops(batch, key, self.drawn_size)
        return (self.draw(images, *window) - images[:, :, *window] / 255).abs().mean()

    def crops(
        self, batch: dict[str, Tensor], key: tuple[int, ...], drawn_size: int
    ) -> tuple[Tensor, tuple[slice, slice]]:
        """Crops (B, 3, N, N) uint8 of a batch at a random scale, and a window of them."""
        streams, images = self.streams(batch, key), self.check(batch)
        scale = 1 + (self.max_scale - 1) * float(streams.uniform(())[0])
        side = round(self.low_size * scale)
        pairs = zip(images, streams.uniform((2,)), strict=True)
        images = torch.stack([crop(image, place, side) for image, place in pairs])
        return images, draw_window(side, drawn_size, streams)

    def check(self, batch: dict[str, Tensor]) -> Tensor:
        """The batch's images, (B, 3, H', W'); raises InputError where they are none, or small."""
        images, least = self.images_of(batch), round(self.low_size * self.max_scale)
        if min(images.shape[2:]) < least:
            raise InputError(
                f"An implicit decoder learns from images of at least {least}×{least} pixels,"
                f" low_size times max_scale; the data has {tuple(images.shape)}. Raise the data's"
                " crop_size, or lower one of the two."
            )
        return images

    def draw(self, images: Tensor, rows: slice, columns: slice) -> Tensor:
        """Make square images smaller, encode them, and draw a part at its size again.

        Args:
            images: (B, 3, N, N) uint8 RGB.
            rows: of N that are drawn.
            columns: of N.

        Returns:
            (B, 3, rows, columns) float RGB, nominal [0, 1].
        """
        low, coded = (self.low_size, self.low_size), self.encode(images)
        features = self.network.encode(coded.decoded, coded.numbers, self.codec.patch_size)
        size = images.shape[2:]
        correction: Tensor = self.network.render(features, low, (0, 0), size, rows, columns)
        return coded.base[:, :, rows, columns] + correction

    @torch.no_grad()
    def encode(self, images: Tensor) -> "Coded":
        """Make square images (B, 3, N, N) uint8 RGB smaller, and encode them."""
        with full_float32(images.device):
            low = resized(images, (self.low_size, self.low_size))
            vectors = self.codec.check_and_look_up(self.codec.encode(low))
            decoded = self.codec.restore(vectors) / 255
            base = resize(decoded, (images.shape[2], images.shape[3]))
            numbers = code_numbers(cast(VectorQuantizedCodec, self.codec), vectors)
        return Coded(decoded, numbers, base)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss, and PSNR by scale beside that of interpolation."""
        images, codec = self.check(batch), self.trained()
        figures = {"val/loss": self.loss(batch, self.validation_key())}
        for scale in (one for one in _MEASURED if one <= self.max_scale):
            side = round(self.low_size * scale)
            high = images[..., :side, :side]
            low = resized(high, (self.low_size, self.low_size))
            codes = codec.encode(low)
            for name, plain in (("", False), ("_bicubic", True)):
                decoded = codec.decode(codes, (side, side), plain)
                figures[f"val/psnr_{scale:g}x{name}"] = psnr(decoded, high).mean()
        self.log_dict(figures, sync_dist=True, batch_size=len(images))


@dataclass(frozen=True)
class Coded:
    """Images through the codec, L pixels a side, h×w positions.

    Attributes:
        decoded: (B, 3, L, L) float RGB, nominal [0, 1].
        numbers: (B, D, h, w), as of `code_numbers`.
        base: the decoded ones at their first size, interpolated, (B, 3, N, N).
    """

    decoded: Tensor
    numbers: Tensor
    base: Tensor


def draw_window(side: int, drawn_size: int, streams: SampleStreams) -> tuple[slice, slice]:
    """Rows and columns of a window of drawn_size, at most all, of an image of side×side pixels."""
    drawn = min(drawn_size, side)
    top, left = (int(part * (side - drawn + 1)) for part in streams.uniform((2,))[0].tolist())
    return slice(top, top + drawn), slice(left, left + drawn)


def crop(image: Tensor, place: Tensor, side: int) -> Tensor:
    """Cut side×side pixels of an image (3, H, W); place is (2,) in [0, 1), from top left on."""
    top, left = (
        int(part * (length - side + 1))
        for part, length in zip(place.tolist(), image.shape[1:], strict=True)
    )
    return image[:, top : top + side, left : left + side]
