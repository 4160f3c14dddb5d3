"""A few lines of SVG: escaped elements, linear scales, axes with round ticks. Colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

LETTER = 7.2  # pixels of a letter of an axis' label


def element(tag: str, *children: str | Markup, **attributes: object) -> Markup:
    """An element; text and attributes are escaped, ``class_`` is ``class``, an underscore in a name is a hyphen."""
    parts = [f' {name.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for name, value in attributes.items()]
    return Markup(f"<{tag}{''.join(parts)}>{''.join(escape(child) for child in children)}</{tag}>")


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def drawing(width: int, height: int, title: str, *children: str | Markup) -> Markup:
    """The outer element: scales with the page, and names itself to screen readers."""
    return element("svg", element("title", title), *children, viewBox=f"0 0 {width} {height}", width=width,
                   height=height, role="img", aria_label=title)


@dataclass(frozen=True)
class Scale:
    """Linear map of [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))

    def ticks(self, wanted: int = 6) -> list[float]:
        """Round numbers within the scale."""
        step = _round_step((self.high - self.low) / wanted)
        first, last = np.ceil(self.low / step - 1e-9), np.floor(self.high / step + 1e-9)
        return [float(i * step) + 0.0 for i in np.arange(first, last + 1)]

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, margin: float = 0.05) -> Scale:
        """A scale that holds all ``values`` with some air."""
        values = list(values) or [0.0, 1.0]
        low, high = min(values), max(values)
        air = margin * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - air, high + air, start, end)


def _round_step(rough: float) -> float:
    power = 10.0 ** np.floor(np.log10(rough))
    return float(power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999))


def tick_label(value: float) -> str:
    return f"{value:.6g}".replace("-", "−") if value else "0"


def x_axis(scale: Scale, top: float, bottom: float, label: str) -> Markup:
    """Grid lines from ``top`` to ``bottom``, tick labels and a label under them."""
    marks = [element("line", x1=scale(t), x2=scale(t), y1=top, y2=bottom, class_="grid") for t in scale.ticks()]
    marks += [element("text", tick_label(t), x=scale(t), y=bottom + 16, class_="tick", text_anchor="middle")
              for t in scale.ticks()]
    middle = (scale.start + scale.end) / 2
    marks.append(element("text", label, x=middle, y=bottom + 36, class_="axis", text_anchor="middle"))
    return Markup("").join(marks)


def y_axis(scale: Scale, left: float, right: float, label: str) -> Markup:
    """Grid lines from ``left`` to ``right``, tick labels, and a label that reads upwards."""
    marks = [element("line", x1=left, x2=right, y1=scale(t), y2=scale(t), class_="grid") for t in scale.ticks()]
    marks += [element("text", tick_label(t), x=left - 8, y=scale(t) + 4, class_="tick", text_anchor="end")
              for t in scale.ticks()]
    middle, room = (scale.start + scale.end) / 2, abs(scale.start - scale.end)
    fitted = {"textLength": f"{room:.0f}", "lengthAdjust": "spacingAndGlyphs"} if LETTER * len(label) > room else {}
    return Markup("").join([*marks, element("text", label, class_="axis", text_anchor="middle", **fitted,
                                            transform=f"translate({left - 42:.0f} {middle:.0f}) rotate(-90)")])


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def marker(x: float, y: float, partition: str, title: str = "", size: float = 5.5) -> Markup:
    """A filled circle for ``inside``, a diamond for ``outside``: told apart without colour too."""
    label = element("title", title) if title else Markup("")
    if partition == "inside":
        return element("circle", label, cx=x, cy=y, r=size * 0.9, class_="mark inside")
    r = size * 1.2
    diamond = f"M{x:.1f} {y - r:.1f}l{r:.1f} {r:.1f}l{-r:.1f} {r:.1f}l{-r:.1f} {-r:.1f}z"
    return element("path", label, d=diamond, class_="mark outside")
