"""The calibration page: simulated brains held against real ones, in one HTML file that opens anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

from headstart.brains.store import Store
from headstart.brains.volumes import VolumeSpec, template
from headstart.errors import HeadstartError
from headstart.files import atomic_write
from headstart.report.page import assets, csv_text, data_uri, template_environment
from headstart.simulation.ageing import FLUID, REFERENCE, REFERENCE_YEARS
from headstart.simulation.calibration import (
    FEWEST,
    FIGURES,
    ImageSlope,
    Line,
    calibrate,
    image_slope,
    label_of,
    measure_in_images,
    within,
)
from headstart.simulation.realism import Neighbours, Separation, features, nearest, separations
from headstart.simulation.regions import label_regions
from headstart.simulation.segment import CLASSES, tissue_ml
from headstart.simulation.twins import DIAGNOSES, twins

NAME = "calibration.html"
MOST = 1600  # scans of each store that images are measured on; drawn evenly over the store
MOST_NEIGHBOURS, AT_ONCE = 200, 50  # scans in memory: to find neighbours among, and else
SLICE_PIXELS = 150
# Measured on images -> columns of which the first that is there says what is true, or was asked for.
MEASURES = {"tissue csf": ("csf_rel",), "tissue grey": ("grey_rel",), "tissue white": ("white_rel",),
            "tissue ventricles": ("lateral_ventricles_rel", "ventricular_volume"),
            **{f"volume {name}": (f"{name}_rel",) for name in CLASSES}}


@dataclass(frozen=True)
class Scans:
    """Part of a store, measured.

    Attributes:
        indices: (n,) of its scans. ages: (n,) years, NaN where unknown. features: name -> (n,), by ``realism``.
        volumes: "volume grey" and so on -> (n,) mL, by ``segment``.
    """

    store: Store
    indices: np.ndarray
    features: Mapping[str, np.ndarray]
    volumes: Mapping[str, np.ndarray]

    @classmethod
    def measured(cls, path: str | Path) -> Scans:
        store = Store.open(path)
        indices = np.unique(np.linspace(0, len(store) - 1, min(MOST, len(store))).astype(int))
        parts = [cls._measured_part(store, indices[i:i + AT_ONCE]) for i in range(0, len(indices), AT_ONCE)]
        joined = [{name: np.concatenate([part[kind][name] for part in parts]) for name in parts[0][kind]}
                  for kind in (0, 1)]
        return cls(store, indices, *joined)

    @staticmethod
    def _measured_part(store: Store, indices: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        images, regions = store.volumes(indices)[:, 0].numpy(), label_regions(template(store.spec.name))
        rows = [tissue_ml(image, store.spec, regions) for image in images]
        return features(images, store.spec), {f"volume {name}": np.array([row[name] for row in rows])
                                              for name in CLASSES}

    def image(self, i: int) -> np.ndarray:
        """(X, Y, Z) the i-th of the scans that were measured."""
        return self.store.volumes(self.indices[i:i + 1])[0, 0].numpy()

    @property
    def ages(self) -> np.ndarray:
        return np.array([np.nan if (age := scan.age_years) is None else age for scan in self.scans])

    @property
    def sites(self) -> list[str]:
        return [scan.site for scan in self.scans]

    @property
    def scans(self) -> list:
        return [self.store.scans[index].scan for index in self.indices]

    def column(self, *names: str) -> np.ndarray | None:
        """The first of these numeric columns that every scan has; None if there is none."""
        for name in names:
            cells = [scan.columns.get(name) for scan in self.scans]
            if None not in cells:
                return np.array(cells, float)
        return None


def write_calibration(simulated: str | Path, real: str | Path, out: str | Path | None = None) -> Path:
    """Write the calibration page of one store against another.

    Args:
        simulated, real: stores on the same grid, prepared alike.
        out: the HTML file; ``calibration.html`` in the simulated store by default.

    Raises:
        HeadstartError: a folder is not a store, the grids differ, or the second store is simulated too or has no ages.
    """
    _check(Store.open(simulated), Store.open(real))
    ours, theirs = Scans.measured(simulated), Scans.measured(real)
    found = Findings.of(ours, theirs)
    page = template_environment().get_template("calibration.html.j2").render(
        found=found, reference=REFERENCE, fluid=FLUID, figures=FIGURES, simulated=_summary(ours), real=_summary(theirs),
        sentences=sentences(found), decades=list(_decades(ours, theirs)), twins=list(_twin_rows(ours.store.spec)),
        downloads=_downloads(found),
        median=lambda values: float(np.median(values)), **assets())
    path = Path(out) if out else Path(simulated) / NAME
    with atomic_write(path) as file:
        file.write(page)
    return path


def _check(simulated: Store, real: Store) -> None:
    if simulated.contract.volume != real.contract.volume:
        raise HeadstartError(f"is on the grid {simulated.contract.volume}, the real store on {real.contract.volume}",
                             path=simulated.path, fix="Give two stores on the same grid.")
    if any(stored.scan.simulated for stored in real.scans):
        raise HeadstartError("holds simulated brains", path=real.path, fix="Give a store of real scans as --against.")
    if not all(stored.scan.simulated for stored in simulated.scans):
        raise HeadstartError("holds real scans", path=simulated.path, fix="Give the simulated store first.")
    if all(stored.scan.age_years is None for stored in real.scans):
        raise HeadstartError("says nobody's age", path=real.path,
                             fix="Put an age column into its participants.tsv and run `headstart prepare` again.")


@dataclass(frozen=True)
class Findings:
    """Everything on the page that is a number; ``lines`` and ``seen`` are empty where there are too few to measure."""

    lines: tuple[Line, ...]
    people: int
    seen: tuple[tuple[Line, float | None], ...]  # measured on images at the reference's ages, r with the label
    slopes: tuple[tuple[str, ImageSlope, ImageSlope | None], ...]  # measure, simulated, real of the same ages
    ages: tuple[float, float]
    separations: tuple[Separation, ...]
    between_sites: tuple[Separation, ...]
    neighbours: Neighbours

    @classmethod
    def of(cls, ours: Scans, theirs: Scans) -> Findings:
        lines, people = _lines(ours.store)
        ages = (float(np.nanmin(theirs.ages)), float(np.nanmax(theirs.ages)))
        return cls(lines, people, tuple(_seen(ours)), tuple(_slopes(ours, theirs, ages)), ages,
                   tuple(separations(theirs.features, ours.features, theirs.sites)), tuple(_between_sites(theirs)),
                   _nearest(theirs, ours))


def _nearest(theirs: Scans, ours: Scans) -> Neighbours:
    n = min(len(theirs.indices), len(ours.indices), MOST_NEIGHBOURS)
    real, simulated = (scans.store.volumes(scans.indices[:n])[:, 0].numpy() for scans in (theirs, ours))
    return nearest(real, simulated, ours.store.spec)


def _lines(store: Store) -> tuple[tuple[Line, ...], int]:
    """The label side, on every healthy person of the reference's ages in the store."""
    low, high = REFERENCE_YEARS
    people = [s.scan for s in store.scans if s.scan.age_years is not None and low <= s.scan.age_years <= high
              and s.scan.columns.get("diagnosis", "CN") == "CN"]
    names = [label_of(name) for name in REFERENCE]
    if len(people) < FEWEST or any(name not in person.columns for person in people for name in names):
        return (), len(people)
    labels = {name: np.array([float(person.columns[name]) for person in people]) for name in names}
    labels |= {"age": np.array([person.age_years for person in people]), "sex": np.array([p.sex for p in people])}
    return tuple(calibrate(labels)), len(people)


def _seen(ours: Scans) -> Iterator[tuple[Line, float | None]]:
    """The image side: healthy people of the reference's ages among the scans that were measured."""
    rows = np.array([scan.columns.get("diagnosis", "CN") == "CN" and scan.sex is not None for scan in ours.scans])
    rows &= (ours.ages >= REFERENCE_YEARS[0]) & (ours.ages <= REFERENCE_YEARS[1])
    if rows.sum() < FEWEST:
        return
    sites = [site for site, kept in zip(ours.sites, rows) if kept]
    male = np.array([scan.sex == "M" for scan in ours.scans])[rows]
    for line in measure_in_images({name: ours.volumes[f"volume {name}"][rows] for name in CLASSES}, ours.ages[rows],
                                  male, sites):
        label, values = ours.column(f"{line.structure}_rel"), ours.volumes[f"volume {line.structure}"][rows]
        truth = None if label is None else np.corrcoef(within(label[rows], sites), within(values, sites))[0, 1]
        yield line, None if truth is None else float(truth)


def _slopes(ours: Scans, theirs: Scans, ages: tuple[float, float]) -> Iterator[tuple]:
    """What intensity alone finds, in simulated and real scans of the same ages."""
    for measure, columns in MEASURES.items():
        mine, yours = _image_slope(ours, measure, ages, columns), _image_slope(theirs, measure, ages)
        if mine is not None:
            yield measure, mine, yours


def _image_slope(scans: Scans, measure: str, ages: tuple[float, float],
                 columns: Sequence[str] = ()) -> ImageSlope | None:
    rows = (scans.ages >= ages[0]) & (scans.ages <= ages[1])
    if rows.sum() < FEWEST:
        return None
    truth = scans.column(*columns)
    return image_slope(measure, {**scans.features, **scans.volumes}[measure][rows], scans.ages[rows],
                       [site for site, kept in zip(scans.sites, rows) if kept], None if truth is None else truth[rows])


def _between_sites(theirs: Scans) -> Iterator[Separation]:
    """The same classifier between real sites: what separating scanners and people looks like without a simulator."""
    site = np.array(theirs.sites)
    names = [name for name in sorted(set(theirs.sites)) if (site == name).sum() >= 8]
    for name in names if len(names) > 1 else []:
        one = {key: column[site == name] for key, column in theirs.features.items()}
        rest = {key: column[site != name] for key, column in theirs.features.items()}
        yield from separations(one, rest, [name] * int((site == name).sum()))[1:]


def sentences(found: Findings) -> list[str]:
    """The page in words."""
    whole, near = found.separations[0], found.neighbours
    said = []
    if found.lines:
        agree = sum(line.agrees(REFERENCE[line.structure]) for line in found.lines)
        said.append(f"On {found.people:,} simulated people of 40 to 86 years, {agree} of {len(found.lines)} structures "
                    f"change with age as in real people ({_slopes_said(found.lines)} within 30 %, or one point where "
                    "below 3 %).")
    said.append(f"A classifier on plain features tells real from simulated scans with an AUROC of "
                f"{max(whole.linear, whole.nearest):.2f} (0.5 would be chance); the best single cue is "
                f"“{whole.cues[0][0]}” ({whole.cues[0][1]:.2f}).")
    said.append(f"A simulated brain lies {np.median(near.simulated):.3f} from its nearest simulated neighbour, a real "
                f"one {np.median(near.real):.3f} from its nearest real one (medians, root mean square of intensity); "
                f"no two simulated brains are closer than {near.simulated.min():.3f}.")
    return said


def _slopes_said(lines: Sequence[Line]) -> str:
    return "the slope; nobody is older than 60:" if np.isnan(lines[0].late_slope) else "both slopes"


def _summary(scans: Scans) -> dict[str, Any]:
    return {"n": len(scans.store), "measured": len(scans.indices), "sites": sorted(set(scans.sites)),
            "ages": (float(np.nanmin(scans.ages)), float(np.nanmax(scans.ages))), "spec": scans.store.spec.name,
            "datasets": sorted({scan.dataset for scan in scans.scans})}


def _decades(ours: Scans, theirs: Scans) -> Iterator[dict[str, Any]]:
    """Per decade the two scans of either kind nearest to its middle; real ones where there are any."""
    for start in range(20, 90, 10):
        row = {name: [_picture(s, i) for i in _nearest_to(s.ages, start + 5.0)] for name, s in
               (("real", theirs), ("simulated", ours))}
        if any(row.values()):
            yield {"decade": f"{start}–{start + 9}", **row}


def _nearest_to(ages: np.ndarray, middle: float, wanted: int = 2) -> list[int]:
    order = np.argsort(np.abs(ages - middle), kind="stable")
    return [int(i) for i in order[:wanted] if abs(ages[i] - middle) <= 5]


def _picture(scans: Scans, i: int) -> dict[str, str]:
    scan = scans.scans[i]
    return {"uri": slices_uri(scans.image(i)), "text": f"{scan.site}, {scan.age_years:.0f} y, {scan.sex or '?'}"}


def _twin_rows(spec: VolumeSpec) -> Iterator[dict[str, Any]]:
    for diagnosis in DIAGNOSES:
        healthy, ill, subject = twins(diagnosis, spec)
        change = np.where(healthy != 0, 0.5 + (ill - healthy), 0)
        yield {"title": f"{diagnosis}: the same simulated person of {subject.age:.0f} years, without and with the "
                        "disease at its full stage, and the difference",
               "uris": [slices_uri(volume) for volume in (healthy, ill, change)]}


def slices_uri(volume: np.ndarray) -> str:
    """Axial, coronal and sagittal slices of a scaled scan (X, Y, Z) in one PNG, as a data URI."""
    shape = np.array(volume.shape)
    views = [volume[:, :, round(0.47 * shape[2])], volume[:, round(0.52 * shape[1]), :], volume[round(0.46 * shape[0])]]
    sheet = np.concatenate([_square(np.clip(view, 0, 1.3) / 1.3) for view in views], 1)
    file = io.BytesIO()
    Picture.fromarray(sheet).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _square(view: np.ndarray) -> np.ndarray:
    """Front or top of the head up, padded to a square."""
    pixels, side = (255 * view.T[::-1]).astype(np.uint8), max(view.shape)
    pads = [((side - n) // 2, side - n - (side - n) // 2) for n in pixels.shape]
    return np.asarray(Picture.fromarray(np.pad(pixels, pads)).resize((SLICE_PIXELS,) * 2, Picture.Resampling.BICUBIC))


def _downloads(found: Findings) -> list[tuple[str, str]]:
    fields = ("structure", "mean_60", "slope", "late_slope", "r", "residual_cv", "male")
    groups = list(found.separations[0].groups)
    lines = (*found.lines, *(line for line, _ in found.seen))
    texts = {"structures.csv": csv_text(["measured on", *fields], (
                 ["tissue" if line in found.lines else "image", *(_known(asdict(line)[name]) for name in fields)]
                 for line in lines)),
             "separations.csv": csv_text(["site", "real", "other", "linear", "nearest", *groups, "cue", "cue_auroc"],
                                         map(_cells, found.separations))}
    return [(name, data_uri(name, text)) for name, text in texts.items()]


def _known(value: Any) -> Any:
    """Nothing where a number could not be measured."""
    return "" if value != value else value


def _cells(row: Separation) -> Sequence[Any]:
    return [row.name, row.n_real, row.n_other, row.linear, row.nearest, *row.groups.values(), *row.cues[0][:2]]
