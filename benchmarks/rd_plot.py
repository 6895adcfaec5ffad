"""Drawing rate and distortion: quality over bits a pixel, in two panels."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from coding import Point
from matplotlib import pyplot
from matplotlib.axes import Axes

COLOURS = {"JPQ": "#d1342b", "RQ": "#7b52ab", "OPQ": "#1f6fb4", "PQ": "#2a9d8f"}
COLOURS |= {"JPEG": "#6b6b6b", "WebP": "#b07d2b", "AVIF": "#222222"}


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Write a PNG: PSNR at the left, MS-SSIM, or SSIM of small images, in decibels at the right."""
    name, field = "MS-SSIM", "ms_ssim"
    if any(math.isnan(p.ms_ssim) for p in points):
        name, field = "SSIM", "ssim"
    matplotlib.use("Agg")
    figure, axes = pyplot.subplots(1, 2, figsize=(14, 5.2), layout="constrained")
    panel(axes[0], points, "PSNR, dB (RGB)", lambda p: p.psnr)
    decibels = f"{name}, dB: -10 log10(1 - {name}) (RGB)"
    panel(axes[1], points, decibels, lambda p: -10 * math.log10(max(1 - getattr(p, field), 1e-5)))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def panel(
    axes: Axes, points: Sequence[Point], label: str, quality: Callable[[Point], float]
) -> None:
    """A line for each kind, hollow where its rate was not reached; single codecs are marks."""
    for kind in [*COLOURS, *dict.fromkeys(p.coder.name for p in points if not p.coder.curve)]:
        own = [p for p in points if kind == (p.coder.curve or p.coder.name)]
        own.sort(key=lambda p: p.rate)
        x, y = [p.rate for p in own], [quality(p) for p in own]
        if kind not in COLOURS:
            axes.plot(x, y, "D", label=kind, markeredgecolor="black", markersize=8, zorder=4)
            continue
        colour, width = COLOURS[kind], 2.2 if kind.endswith("Q") else 1.0
        axes.plot(x, y, "o-", label=kind, color=colour, linewidth=width, markersize=5)
        hollow = [(a, b) for a, b, p in zip(x, y, own, strict=True) if p.above]
        for a, b in hollow:
            axes.plot(a, b, "ow", markersize=3, zorder=3)
    axes.set(xlabel="bits a pixel", ylabel=label, xlim=(0, None))
    axes.grid(alpha=0.3)
