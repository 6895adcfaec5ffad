"""What a codec costs and keeps: a table of measurements, and a picture of its order.

S codebooks of K codewords.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import (
    ORDINALITY_DISTANCES,
    codebook_usage,
    ordinality,
    psnr,
    rank_correlation,
    ssim,
)
from lit_mbldm.pictures import save, table

_PANEL = 512
_SMALLEST = 7  # the window of SSIM
# what is told of each codebook, with its format and width in the table
_COLUMNS = {
    "used": (".1%", 8),
    "perplexity": (".1f", 12),
    **{str(n): (".0%", 6) for n in ORDINALITY_DISTANCES},
    "rank corr.": (".2f", 12),
}


@dataclass(frozen=True)
class CodecReport:
    """Measurements of a codec on some images; `str` makes the table that the command prints.

    Attributes:
        quantizer: the codec's name.
        num_images: images measured.
        bits_per_pixel: rate of the codes.
        psnr: mean over the images, dB.
        ssim: mean over the images.
        codebooks: of each code channel, `Y0` or `P3`: part of its codewords that occur,
            perplexity of its codes, distance of codewords 1, 2, 4, 8 and 16 apart, relative to a
            random pair, and rank correlation of distance by index and in space; nan where there
            is no such figure.
    """

    quantizer: str
    num_images: int
    bits_per_pixel: float
    psnr: float
    ssim: float
    codebooks: dict[str, dict[str, float]]

    def __str__(self) -> str:
        lines = [
            f"{self.quantizer} on {self.num_images} image{'s' if self.num_images > 1 else ''}:"
            f" {self.bits_per_pixel:g} bits a pixel (1:{24 / self.bits_per_pixel:g}),"
            f" PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.3f}",
            "",
            "Distances between codewords, relative to a random pair (100 %):",
            f"{'':<30}{'distance at index distance':^40}",
            f"{'codebook':<10}"
            + "".join(f"{name:>{width}}" for name, (_, width) in _COLUMNS.items()),
        ]
        for name, figures in self.codebooks.items():
            cells = [f"{name:<10}"]
            for value, (form, width) in zip(figures.values(), _COLUMNS.values(), strict=True):
                cells.append(f"{'–' if math.isnan(value) else format(value, form):>{width}}")
            lines.append("".join(cells))
        return "\n".join(lines)


def codec_report(
    codec: ImageCodec, images: Iterable[Tensor], picture: Path | None = None
) -> CodecReport:
    """Measure a codec, and show the first image as original, decoded and with shifted indices.

    Images whose sides are no multiples of the patch size are cropped around their centre.

    Args:
        codec: a fitted codec.
        images: uint8 RGB tensors (3, H, W), sizes may differ.
        picture: PNG to write, if any; see `order_panels` for what it shows.

    Raises:
        InputError: no images, or one smaller than a patch or than 7×7.
    """
    assert isinstance(codec, VectorQuantizedCodec)
    quality: list[tuple[float, float]] = []
    codes: list[Tensor] = []
    for image in images:
        cropped = _crop(image, codec.patch_size)
        if picture is not None and not codes:
            _show(order_panels(codec, _crop(image, codec.patch_size, _PANEL)), picture)
        code = codec.encode(cropped[None])
        decoded = codec.decode(code)[0]
        quality.append((float(psnr(cropped, decoded)), float(ssim(cropped, decoded))))
        codes.append(code.flatten(2)[..., None])  # (1, S, hw, 1)
    if not codes:
        raise InputError("No images to report on: give a folder or shards that hold some.")
    usage = zip(*codebook_usage(torch.cat(codes, dim=2), codec.codebook_size), strict=True)
    figures = [
        dict(
            zip(
                _COLUMNS,
                [*map(float, used), *ordinality(book).tolist(), rank_correlation(book)],
                strict=True,
            )
        )
        for used, book in zip(usage, codec.codebooks(), strict=True)
    ]
    books = dict(zip(codec.code_names, figures, strict=True))
    decibels, similarity = torch.tensor(quality, dtype=torch.float64).mean(0).tolist()
    rate = codec.bits_per_pixel
    return CodecReport(codec.quantizer, len(codes), rate, decibels, similarity, books)


def order_panels(codec: ImageCodec, image: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Decode an image after adding 1 to every index, before and after pseudo-ordinal sorting.

    A random permutation of each codebook stands for its order before sorting: k-means leaves
    none. The last index stays where it is.

    Source: Scribano et al. 2023, Figure 3.

    Args:
        codec: a fitted codec.
        image: (3, H, W) uint8, sides multiples of the patch size.
        seed: of the permutations.

    Returns:
        Four images (3, H, W) uint8 by caption: original, decoded, unsorted + 1, sorted + 1.
    """
    K = codec.codebook_size
    codes = codec.encode(image[None]).long()  # (1, S, h, w)
    flat = codes[0].flatten(1)  # (S, hw)
    generator = torch.Generator().manual_seed(seed)
    index_of = torch.stack([torch.randperm(K, generator=generator) for _ in flat]).to(codes.device)
    shifted = (index_of.gather(1, flat) + 1).clamp(max=K - 1)  # index_of: (S, K), sorted → unsorted
    unsorted = index_of.argsort(1).gather(1, shifted).view_as(codes)
    panels = {"original": image}
    for caption, shown in {
        "decoded": codes,
        "every index + 1, unsorted": unsorted,
        "every index + 1, sorted": (codes + 1).clamp(max=K - 1),
    }.items():
        decoded = codec.decode(shown)[0]
        panels[f"{caption}: {float(psnr(image, decoded)):.1f} dB"] = decoded
    return panels


def _crop(image: Tensor, patch_size: int, largest: int | None = None) -> Tensor:
    """Cut the centre (3, H, W) whose sides are multiples of the patch size."""
    height, width = image.shape[-2:]
    if min(height, width) < max(patch_size, _SMALLEST):
        raise InputError(
            f"An image of {height}×{width} pixels is too small: the report needs sides of at"
            f" least {max(patch_size, _SMALLEST)}. Remove it or give larger images."
        )
    sides = [min(side, largest or side) // patch_size * patch_size for side in (height, width)]
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    return image[:, top : top + sides[0], left : left + sides[1]]


def _show(panels: dict[str, Tensor], path: Path) -> None:
    """Write panels side by side, wide enough for their captions."""
    images = torch.stack([*panels.values()])
    scale = math.ceil(_PANEL / images.shape[-1])
    enlarged = images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    save(table(enlarged[None], columns=[*panels]), path)
