"""Drawing rate and distortion: quality over bits a pixel, in two panels."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from coding import Point
from matplotlib import pyplot
from matplotlib.axes import Axes

COLOURS = {"JPQ": "#d1342b", "RQ": "#7b52ab", "OPQ": "#1f6fb4", "PQ": "#2a9d8f"}
COLOURS |= {"JPEG": "#6b6b6b", "WebP": "#b07d2b", "AVIF": "#222222"}
SIMILARITIES = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999]


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Write a PNG: PSNR in the left panel, MS-SSIM, or SSIM of small images, in the right."""
    small = any(math.isnan(p.ms_ssim) for p in points)
    similarity = ("SSIM", "ssim") if small else ("MS-SSIM", "ms_ssim")
    matplotlib.use("Agg")
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5.2), layout="constrained")
    panel(axes[0], points, "PSNR, dB (RGB)", "psnr")
    panel(axes[1], points, f"{similarity[0]} (RGB), its axis logarithmic in 1 - x", similarity[1])
    axes[1].set_yscale("function", functions=(lambda y: -np.log10(1 - y), lambda s: 1 - 10.0**-s))
    low, high = axes[1].dataLim.intervaly
    ticks = [t for t in SIMILARITIES if low - 0.1 * (1 - low) < t < high + 0.3 * (1 - high)]
    axes[1].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[1].legend(loc="lower right")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def panel(axes: Axes, points: Sequence[Point], label: str, quality: str) -> None:
    """A line for each kind of codec, hollow where a rate was not reached; marks for the others."""
    kinds = dict.fromkeys(p.coder.curve or p.coder.name for p in points)
    for kind in sorted(kinds, key=lambda kind: kind not in COLOURS):
        own = [p for p in points if kind == (p.coder.curve or p.coder.name)]
        own.sort(key=lambda p: p.rate)
        x, y = [p.rate for p in own], [getattr(p, quality) for p in own]
        if kind not in COLOURS:
            axes.plot(x, y, "D", label=kind, markeredgecolor="black", markersize=8, zorder=3)
            continue
        width = 2.2 if kind.endswith("Q") else 1.0
        axes.plot(x, y, "o-", label=kind, color=COLOURS[kind], linewidth=width, markersize=4)
        hollow = [(p.rate, getattr(p, quality)) for p in own if p.above]
        axes.plot(*np.array(hollow).reshape(-1, 2).T, "o", color="white", markersize=2.5, zorder=4)
    axes.set(xlabel="bits a pixel", ylabel=label, xlim=(0, None))
    axes.grid(alpha=0.3)
