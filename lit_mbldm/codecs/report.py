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
from lit_mbldm.codecs.latents import place_codewords
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import (
    ORDINALITY_DISTANCES,
    codebook_usage,
    noise_error,
    ordinality,
    psnr,
    rank_correlation,
    ssim,
)
from lit_mbldm.pictures import save, table

_PANEL = 512
_COORDINATES = (1, 2, 3)
_SMALLEST = 7  # the window of SSIM


@dataclass(frozen=True)
class CodebookReport:
    """Measurements of one codebook.

    Attributes:
        name: of the code channel: `Y0`, `Cb`, `P3`.
        used: part of its codewords that occur, in [0, 1].
        perplexity: of its codes, in [1, K].
        ordinality: distance of codewords 1, 2, 4, 8 and 16 apart, relative to a random pair.
        rank_correlation: of distance by index and distance in space, in [-1, 1].
        noise_errors: relative distance of what is decoded after 10 % noise on each number, of the
            index latent and of the principal latents of 1, 2 and 3 coordinates; nan of more
            coordinates than codewords have numbers.
    """

    name: str
    used: float
    perplexity: float
    ordinality: list[float]
    rank_correlation: float
    noise_errors: list[float]


@dataclass(frozen=True)
class CodecReport:
    """Measurements of a codec on some images; `str` makes the table that the command prints.

    Attributes:
        quantizer: the codec's name.
        num_images: images measured.
        bits_per_pixel: rate of the codes.
        compression_ratio: 24 bits a pixel over that rate.
        psnr: mean over the images, dB.
        ssim: mean over the images.
        codebooks: one for each code channel.
    """

    quantizer: str
    num_images: int
    bits_per_pixel: float
    compression_ratio: float
    psnr: float
    ssim: float
    codebooks: list[CodebookReport]

    def __str__(self) -> str:
        apart = "".join(f"{n:>6}" for n in ORDINALITY_DISTANCES)
        lines = [
            f"{self.quantizer} on {self.num_images} image{'s' if self.num_images > 1 else ''}:"
            f" {self.bits_per_pixel:g} bits a pixel (1:{self.compression_ratio:g}),"
            f" PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.3f}",
            "",
            "Distances between codewords, relative to a random pair (100 %):",
            f"{'':<30}{'distance at index distance':^40}{'error at 10 % noise':^28}",
            f"{'codebook':<10}{'used':>8}{'perplexity':>12}{apart}{'rank corr.':>12}"
            f"{'index':>8}{'d = 1':>7}{'d = 2':>7}{'d = 3':>7}",
        ]
        for book in self.codebooks:
            near = "".join(_cell(value, ".0%", 6) for value in book.ordinality)
            noisy = "".join(_cell(value, ".0%", 7) for value in book.noise_errors)
            lines.append(
                f"{book.name:<10}{book.used:>8.1%}{book.perplexity:>12.1f}{near}"
                f"{_cell(book.rank_correlation, '.2f', 12)} {noisy}"
            )
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
    decibels, similarity = torch.tensor(quality, dtype=torch.float64).mean(0).tolist()
    assert isinstance(codec, VectorQuantizedCodec)
    usage = codebook_usage(torch.cat(codes, dim=2), codec.codebook_size)
    books = zip(codec.code_names, usage.fraction, usage.perplexity, codec.codebooks(), strict=True)
    return CodecReport(
        quantizer=codec.quantizer,
        num_images=len(codes),
        bits_per_pixel=codec.bits_per_pixel,
        compression_ratio=24 / codec.bits_per_pixel,
        psnr=decibels,
        ssim=similarity,
        codebooks=[
            CodebookReport(
                name,
                float(used),
                float(perplexity),
                ordinality(codewords).tolist(),
                rank_correlation(codewords),
                _noise_errors(codewords),
            )
            for name, used, perplexity, codewords in books
        ],
    )


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
    permutations = [torch.randperm(K, generator=generator) for _ in flat]
    index_of = torch.stack(permutations).to(codes.device)  # (S, K), sorted → unsorted
    shifted = (index_of.gather(1, flat) + 1).clamp(max=K - 1)
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


def _noise_errors(codewords: Tensor) -> list[float]:
    index = torch.linspace(-1, 1, len(codewords))[:, None]
    return [noise_error(index, codewords)] + [
        noise_error(place_codewords(codewords, d), codewords)
        if d <= codewords.shape[1]
        else math.nan
        for d in _COORDINATES
    ]


def _cell(value: float, form: str, width: int) -> str:
    return ("–" if math.isnan(value) else f"{value:{form}}").rjust(width)


def _show(panels: dict[str, Tensor], path: Path) -> None:
    """Write panels side by side, wide enough for their captions."""
    images = torch.stack([*panels.values()])
    scale = math.ceil(_PANEL / images.shape[-1])
    enlarged = images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    save(table(enlarged[None], columns=[*panels]), path)
