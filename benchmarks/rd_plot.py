"""Drawing rate and distortion: quality over bits a pixel, in two panels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SCALE = 3  # drawn larger and made smaller again, which smooths lines
WIDTH, HEIGHT = 780, 620  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 76, 84, 92, 70
TEXT, SMALL, TITLE = 17, 15, 22
COLOURS = {
    "JPQ": "#d1342b",
    "RQ": "#7b52ab",
    "OPQ": "#1f6fb4",
    "PQ": "#2a9d8f",
    "JPEG": "#6b6b6b",
    "WebP": "#b07d2b",
    "AVIF": "#222222",
}
MARK_COLOURS = ("#f2a900", "#00a6d6", "#e377c2", "#8bc34a", "#c0c0c0")
SIMILARITIES = (
    *(0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.985),
    *(0.99, 0.993, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9999),
)

Pair = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A named line through (bits a pixel, quality), by rate, or with `mark` single points.

    Hollow points did not reach the rate they were meant to have.
    """

    name: str
    points: Sequence[Pair]
    hollow: Sequence[bool]
    thick: bool
    mark: bool


@dataclass(frozen=True)
class Axis:
    """Ticks, and how a value lies along the axis."""

    title: str
    ticks: Sequence[float]
    along: Callable[[float], float] = float

    def fraction(self, value: float) -> float:
        """0 at the first tick, 1 at the last."""
        low, high = self.along(self.ticks[0]), self.along(self.ticks[-1])
        return (self.along(value) - low) / (high - low)


def draw(title: str, left: Sequence[Curve], right: Sequence[Curve], similarity: str) -> Image.Image:
    """Draw PSNR in the left panel, and a similarity, its axis stretched towards 1, in the right."""
    sheet = Image.new("RGB", (2 * WIDTH * SCALE, HEIGHT * SCALE), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (LEFT * SCALE, 14 * SCALE), title, "black", ImageFont.load_default(TITLE * SCALE), "la"
    )
    decibels = [y for curve in left for _, y in curve.points]
    similarities = [y for curve in right for _, y in curve.points]
    axes = (
        Axis("PSNR, dB (RGB)", even_ticks(min(decibels), max(decibels))),
        Axis(
            f"{similarity} (RGB), logarithmic in 1 - {similarity}",
            enclosing(similarities),
            lambda y: -math.log10(max(1 - y, 1e-5)),
        ),
    )
    rates = even_ticks(0, max(x for curve in left for x, _ in curve.points))
    for number, (axis, curves) in enumerate(zip(axes, (left, right), strict=True)):
        panel = Panel(pen, number * WIDTH, Axis("bits a pixel", rates), axis)
        panel.draw(curves)
    panel.legend(right)
    return sheet.resize((2 * WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def even_ticks(low: float, high: float) -> list[float]:
    """From six to a dozen round numbers that enclose a range, of at least 1."""
    high = max(high, low + 1)
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 10, step / 5, step / 4, step / 2, step) if (high - low) / s < 11)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, last + 1)]


def enclosing(values: Sequence[float]) -> list[float]:
    """The similarities with ticks that enclose all values."""
    low = max((i for i, tick in enumerate(SIMILARITIES) if tick <= min(values)), default=0)
    high = next((i for i, t in enumerate(SIMILARITIES) if t >= max(values)), len(SIMILARITIES) - 1)
    return list(SIMILARITIES[low : max(high, low + 1) + 1])


class Panel:
    """One pair of axes and what lies between them; sizes are pixels of the finished picture."""

    def __init__(self, pen: ImageDraw.ImageDraw, left: int, x: Axis, y: Axis) -> None:
        self.pen, self.x, self.y = pen, x, y
        self.box = (left + LEFT, TOP, left + WIDTH - RIGHT, HEIGHT - BOTTOM)

    def draw(self, curves: Sequence[Curve]) -> None:
        """Axes, thin lines, thick lines, labels at their ends, and single marks."""
        self._axes()
        lines = [curve for curve in curves if not curve.mark]
        for curve in sorted(lines, key=lambda curve: curve.thick):
            self._curve(curve)
        self._labels(lines)
        for number, curve in enumerate(curve for curve in curves if curve.mark):
            for point in curve.points:
                self._diamond(self._place(point), number)

    def legend(self, curves: Sequence[Curve]) -> None:
        """Names of the marks above the panel, from the right."""
        x, y = self.box[2] + RIGHT - 8.0, 28.0
        if any(any(curve.hollow) for curve in curves):
            text = "above its rate at the lowest quality"
            x -= self._length(text, SMALL)
            self._text((x, y), text, "black", SMALL, "lm")
            self._dot((x - 12, y), "black", 3.5, hollow=True)
            x -= 44
        marks = [curve.name for curve in curves if curve.mark]
        for number, name in reversed(list(enumerate(marks))):
            x -= self._length(name, SMALL)
            self._text((x, y), name, "black", SMALL, "lm")
            self._diamond((x - 16, y), number)
            x -= 48

    def _place(self, point: Pair) -> Pair:
        left, top, right, bottom = self.box
        x, y = self.x.fraction(point[0]), self.y.fraction(point[1])
        return left + x * (right - left), bottom - y * (bottom - top)

    def _axes(self) -> None:
        left, top, right, bottom = self.box
        for tick in self.y.ticks:
            y = self._place((self.x.ticks[0], tick))[1]
            self._line([(left, y), (right, y)], "#e2e2e2", 1)
            self._text((left - 9, y), f"{tick:g}", "#444444", TEXT, "rm")
        for tick in self.x.ticks:
            x = self._place((tick, self.y.ticks[0]))[0]
            self._line([(x, bottom), (x, bottom + 5)], "#444444", 1)
            self._text((x, bottom + 10), f"{tick:g}", "#444444", TEXT, "mt")
        self._line([(left, bottom), (right, bottom)], "#444444", 1)
        self._text(((left + right) / 2, HEIGHT - 16), self.x.title, "black", TEXT, "ms")
        self._text((left, top - 16), self.y.title, "black", TEXT, "ls")

    def _curve(self, curve: Curve) -> None:
        places = [self._place(point) for point in curve.points]
        colour, radius = COLOURS[curve.name], 5.0 if curve.thick else 3.5
        self._line(places, colour, 3.5 if curve.thick else 1.5)
        for place, hollow in zip(places, curve.hollow, strict=True):
            self._dot(place, colour, radius, hollow)

    def _labels(self, curves: Sequence[Curve]) -> None:
        """Names beside the last points, moved apart where they would overlap."""
        ends = [(self._place(curve.points[-1]), curve) for curve in curves]
        ends.sort(key=lambda end: end[0][1])
        column = max(x for (x, _), _ in ends) + 24
        for ((x, y), curve), shown in zip(ends, apart([end[0][1] for end in ends]), strict=True):
            self._line([(x + 6, y), (column - 3, shown)], "#bbbbbb", 1)
            self._text((column, shown), curve.name, COLOURS[curve.name], TEXT, "lm", curve.thick)

    def _diamond(self, place: Pair, number: int) -> None:
        x, y = place
        corners = [(x, y - 8), (x + 8, y), (x, y + 8), (x - 8, y)]
        scaled = [(SCALE * a, SCALE * b) for a, b in corners]
        self.pen.polygon(scaled, MARK_COLOURS[number % len(MARK_COLOURS)])
        self._line([*corners, corners[0]], "black", 1.5)

    def _dot(self, place: Pair, colour: str, radius: float, hollow: bool) -> None:
        x, y = place
        box = [SCALE * v for v in (x - radius, y - radius, x + radius, y + radius)]
        self.pen.ellipse(box, "white" if hollow else colour, colour, round(1.5 * SCALE))

    def _line(self, places: Sequence[Pair], colour: str, width: float) -> None:
        scaled = [(SCALE * x, SCALE * y) for x, y in places]
        self.pen.line(scaled, colour, round(width * SCALE), joint="curve")

    def _text(
        self, place: Pair, text: str, colour: str, size: int, anchor: str, bold: bool = False
    ) -> None:
        font = ImageFont.load_default(size * SCALE)
        scaled = (SCALE * place[0], SCALE * place[1])
        weight = SCALE / 5 if bold else 0
        self.pen.text(scaled, text, colour, font, anchor, stroke_width=weight, stroke_fill=colour)

    def _length(self, text: str, size: int) -> float:
        return ImageFont.load_default(size * SCALE).getlength(text) / SCALE


def apart(heights: Sequence[float], gap: float = TEXT + 3) -> list[float]:
    """Move sorted heights as far as needed to lie a gap from each other, around their mean."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _span(groups[-2], gap)[1] + gap > _span(groups[-1], gap)[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_span(group, gap)[0] + gap * i for group in groups for i in range(len(group))]


def _span(group: Sequence[float], gap: float) -> Pair:
    """Where the first and last of a group lie when spread around its mean."""
    centre, half = sum(group) / len(group), gap * (len(group) - 1) / 2
    return centre - half, centre + half
