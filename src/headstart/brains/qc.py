"""The quality page of a store: one HTML file that shows every scan, the doubtful ones first, and needs no network."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image as Picture

from headstart.brains.store import Store, StoredScan
from headstart.brains.store_format import FAILED, QC
from headstart.brains.volumes import Template, template
from headstart.files import atomic_write

SHOWN_IN_FULL = 500  # three slices each; every further scan is one axial slice in a mosaic
MOSAIC_COLUMNS, MOSAIC_ROWS = 24, 20
SLICE_PIXELS = 96
BATCH = 64
BINS = 40
OUTLIER_Z = 3.5  # Iglewicz and Hoaglin (1993), for the modified z-score
OUTLINE_RGB = (255, 140, 0)


@dataclass(frozen=True)
class Measure:
    """A number of ``Facts`` that may stand out: in which direction it is bad, and what to say then."""

    name: str
    floor: float  # least spread, so that a cohort of near-equal scans has no outliers
    low: str
    high: str = ""
    digits: int = 3


MEASURES = (
    Measure("overlap", 0.005, "covers the template's brain less well than the others"),
    Measure("correlation", 0.03, "looks less like the template than the others"),
    Measure("linear_scale", 0.02, "was shrunk more than the others", "was enlarged more than the others"),
    Measure("brain_volume_ml", 60.0, "has a smaller brain than the others", "has a larger brain than the others", 0),
)


@dataclass(frozen=True)
class Review:
    """How doubtful a scan is: its largest deviation in robust standard deviations, and why in words."""

    index: int
    score: float
    reasons: tuple[str, ...]


def write_qc(store_path: str | Path) -> Path:
    """Write ``qc.html`` into a finished store and return its path. The same store gives the same bytes."""
    store = Store.open(store_path)
    reviews = review(store.scans)
    full, rest = reviews[:SHOWN_IN_FULL], reviews[SHOWN_IN_FULL:]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("headstart.brains", "."), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("qc.html.jinja").stream(
        contract=store.contract, scans=store.scans, failed=_failed(store.path), reviews=reviews, rest=rest,
        doubtful=sum(bool(item.reasons) for item in reviews), cards=_cards(store, full),
        mosaics=_mosaics(store, rest), groups=_groups(store.scans), columns=MOSAIC_COLUMNS)
    path = store.path / QC
    with atomic_write(path) as file:
        file.writelines(page)
    return path


def review(scans: Sequence[StoredScan]) -> list[Review]:
    """Every scan with its deviations, the most doubtful first, otherwise in row order."""
    measured = [i for i, stored in enumerate(scans) if stored.facts is not None]
    scores, reasons = np.zeros(len(scans)), [list(_notes(stored)) for stored in scans]
    for measure in MEASURES:
        values = np.array([getattr(scans[i].facts, measure.name) for i in measured])
        for i, z, value in zip(measured, _robust_z(values, measure.floor), values):
            words = measure.low if z < 0 else measure.high
            scores[i] = max(scores[i], abs(z) if words else 0)
            if words and abs(z) > OUTLIER_Z:
                numbers = [f"{number:.{measure.digits}f}" for number in (value, np.median(values))]
                reasons[i].append(f"{words} ({numbers[0]}; median {numbers[1]})")
    order = sorted(range(len(scans)), key=lambda i: (not reasons[i], -scores[i], i))
    return [Review(i, float(scores[i]), tuple(reasons[i])) for i in order]


def _notes(stored: StoredScan) -> tuple[str, ...]:
    return stored.facts.notes if stored.facts else ()


def _robust_z(values: np.ndarray, floor: float) -> np.ndarray:
    """Modified z-scores: distance from the median in units of the median absolute deviation."""
    if not len(values):
        return values
    deviation = values - np.median(values)
    return deviation / max(1.4826 * float(np.median(np.abs(deviation))), floor / 2)


def _failed(path: Path) -> list[dict[str, str]]:
    with open(path / FAILED, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _groups(scans: Sequence[StoredScan]) -> list[dict[str, Any]]:
    """Medians by data set."""
    groups = []
    for name in sorted({stored.scan.dataset for stored in scans}):
        facts = [s.facts for s in scans if s.scan.dataset == name and s.facts is not None]
        medians = {m.name: f"{np.median([getattr(f, m.name) for f in facts]):.{m.digits}f}" for m in MEASURES if facts}
        n = sum(stored.scan.dataset == name for stored in scans)
        groups.append({"name": name, "n": n, "extracted": sum(f.already_extracted for f in facts), **medians})
    return groups


def _cards(store: Store, reviews: Sequence[Review]) -> Iterator[dict[str, Any]]:
    target = template(store.contract.volume)
    for item, volume in zip(reviews, _volumes(store, reviews)):
        stored = store.scans[item.index]
        yield {"scan": stored.scan, "facts": stored.facts, "reasons": item.reasons,
               "picture": _three_slices(volume, target), "histogram": _histogram_path(volume)}


def _mosaics(store: Store, reviews: Sequence[Review]) -> Iterator[dict[str, Any]]:
    size = MOSAIC_COLUMNS * MOSAIC_ROWS
    for start in range(0, len(reviews), size):
        part = reviews[start : start + size]
        slices = [_pixels(_upright(volume, 2)) for volume in _volumes(store, part)]
        height, width = slices[0].shape
        sheet = np.zeros((-(-len(part) // MOSAIC_COLUMNS) * height, MOSAIC_COLUMNS * width), np.uint8)
        for place, tile in enumerate(slices):
            row, column = divmod(place, MOSAIC_COLUMNS)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
        yield {"picture": _jpeg(Picture.fromarray(sheet)), "keys": [str(store.scans[i.index].scan.key) for i in part]}


def _volumes(store: Store, reviews: Sequence[Review]) -> Iterator[np.ndarray]:
    for start in range(0, len(reviews), BATCH):
        yield from store.volumes([item.index for item in reviews[start : start + BATCH]])[:, 0].numpy()


def _three_slices(volume: np.ndarray, target: Template) -> str:
    """Axial, sagittal and coronal slices through the grid's middle, with the template's outline."""
    views = []
    for axis in (2, 0, 1):
        grey = _square(_pixels(_upright(volume, axis)), Picture.Resampling.BICUBIC)
        brain = _square(_upright(target.brain, axis).astype(np.uint8) * 255, Picture.Resampling.BILINEAR) > 127
        coloured = np.repeat(grey[..., None], 3, -1)
        coloured[_edge(brain)] = OUTLINE_RGB
        views.append(coloured)
    return _jpeg(Picture.fromarray(np.concatenate(views, 1)))


def _upright(volume: np.ndarray, axis: int) -> np.ndarray:
    """The middle slice across ``axis``, top of the head or front at the top, the right side to the right."""
    return np.take(volume, volume.shape[axis] // 2, axis).T[::-1]


def _pixels(values: np.ndarray) -> np.ndarray:
    """Scaled intensities as grey levels; air, exactly 0, stays black."""
    grey = 30 + 150 * np.clip(values, -0.2, 1.5)
    return np.where(values == 0, 0, grey).astype(np.uint8)


def _square(pixels: np.ndarray, how: Picture.Resampling) -> np.ndarray:
    """Padded to a square, then brought to ``SLICE_PIXELS``."""
    side = max(pixels.shape)
    pads = [((side - n) // 2, side - n - (side - n) // 2) for n in pixels.shape]
    return np.asarray(Picture.fromarray(np.pad(pixels, pads)).resize((SLICE_PIXELS, SLICE_PIXELS), how))


def _edge(mask: np.ndarray) -> np.ndarray:
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inner


def _jpeg(picture: Picture.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode()


def _histogram_path(volume: np.ndarray) -> str:
    """An SVG path, 100 wide and 30 high, of the brain's intensities from -0.5 to 2."""
    counts, _ = np.histogram(volume[volume != 0], BINS, (-0.5, 2.0))
    heights = 30 - 30 * counts / max(counts.max(), 1)
    steps = " ".join(f"{100 * i / BINS:g},{height:.1f}" for i, height in enumerate(heights))
    return f"M0,30 L{steps} L100,30 Z"
