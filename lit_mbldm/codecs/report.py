"""What a codec costs and keeps: a table of figures, and a picture of its order.

S codebooks of K codewords.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
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
from lit_mbldm.pictures import save, to_pil

_PANEL = 512
_GAP = 12
_CAPTION = 30
_COORDINATES = (1, 2, 3)
_SMALLEST = 7  # the window of SSIM


@dataclass(frozen=True)
class CodebookReport:
    """Figures of one codebook.

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
    """Figures of a codec on some images; `str` makes the table that the command prints.

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
    """Measure a codec, and draw the first image as original, decoded and with shifted indices.

    Images whose sides are no multiples of the patch size are cropped around their centre.

    Args:
        codec: a fitted codec.
        images: uint8 RGB tensors (3, H, W), sizes may differ.
        picture: PNG to write, if any; see `order_panels` for what it shows.

    Raises:
        InputError: no images, or one smaller than a patch or than 7×7.
    """
    decibels, similarities, codes, first = [], [], [], None
    for image in images:
        image = _crop(image, codec.patch_size)
        first = image if first is None else first
        code = codec.encode(image[None])
        decoded = codec.decode(code)[0]
        decibels.append(psnr(image, decoded))
        similarities.append(ssim(image, decoded))
        codes.append(code.flatten(2)[..., None])  # (1, S, hw, 1)
    if first is None:
        raise InputError("No images to report on: give a folder or shards that hold some.")
    if picture is not None:
        _draw(order_panels(codec, _crop(first, codec.patch_size, _PANEL)), picture)
    return CodecReport(
        quantizer=codec.quantizer,
        num_images=len(codes),
        bits_per_pixel=codec.bits_per_pixel,
        compression_ratio=24 / codec.bits_per_pixel,
        psnr=float(torch.stack(decibels).mean()),
        ssim=float(torch.stack(similarities).mean()),
        codebooks=_codebook_reports(codec, torch.cat(codes, dim=2)),
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
    last = codec.codebook_size - 1
    codes = codec.encode(image[None]).long()  # (1, S, h, w)
    generator = torch.Generator().manual_seed(seed)
    unsorted = torch.empty_like(codes)
    for site in range(codec.num_codes):
        index_of = torch.randperm(last + 1, generator=generator).to(codes.device)  # sorted → not
        shifted = (index_of[codes[:, site]] + 1).clamp_(max=last)
        unsorted[:, site] = index_of.argsort()[shifted]
    panels = {"original": image}
    for caption, shown in {
        "decoded": codes,
        "every index + 1, unsorted": unsorted,
        "every index + 1, sorted": (codes + 1).clamp_(max=last),
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


def _codebook_reports(codec: ImageCodec, codes: Tensor) -> list[CodebookReport]:
    assert isinstance(codec, VectorQuantizedCodec)
    usage = codebook_usage(codes, codec.codebook_size)
    return [
        CodebookReport(
            name,
            float(used),
            float(perplexity),
            ordinality(codewords).tolist(),
            rank_correlation(codewords),
            _noise_errors(codewords),
        )
        for name, used, perplexity, codewords in zip(
            codec.code_names, usage.fraction, usage.perplexity, codec.codebooks(), strict=True
        )
    ]


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


def _draw(panels: dict[str, Tensor], path: Path) -> None:
    """Write panels side by side with their captions under them; small ones are enlarged."""
    height, width = next(iter(panels.values())).shape[1:]
    scale = max(_PANEL // max(height, width), 1)
    height, width = height * scale, width * scale
    column = max(width, _PANEL * 2 // 3)  # wide enough for a caption
    size = (_GAP + len(panels) * (column + _GAP), _GAP + height + _CAPTION + _GAP)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    for i, (caption, panel) in enumerate(panels.items()):
        centre = _GAP + i * (column + _GAP) + column // 2
        shown = to_pil(panel).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(shown, (centre - width // 2, _GAP))
        pen.text((centre, _GAP + height + _CAPTION // 2 + 4), caption, "black", font, anchor="mm")
    save(sheet, path)
