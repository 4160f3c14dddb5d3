"""Real or simulated? Plain features of prepared scans, the classifier that tells the two apart, and how it does so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from headstart.brains.intensity import tissue_fractions
from headstart.brains.volumes import VolumeSpec, template
from headstart.errors import HeadstartError
from headstart.simulation.regions import label_regions

PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
GROUPS = ("intensity", "gradient", "tissue", "outline")  # what a feature's name begins with
FOLDS, NEIGHBOURS, FEWEST = 5, 5, 8
SURE = 0.8  # template probability above which a voxel counts as a tissue
DARK = 0.5  # grey matter's level: what is darker is fluid in part


@dataclass(frozen=True)
class Separation:
    """How well real scans are told from others, out of fold.

    Attributes:
        name: the site, or all sites together. n_real, n_other: scans.
        linear, nearest: AUROC of a logistic regression and of nearest neighbours on all features; 0.5 is chance.
        groups: group of features -> AUROC of the logistic regression on it alone.
        cues: the single features that separate best, (name, AUROC from 0.5 on, whether real scans are higher).
    """

    name: str
    n_real: int
    n_other: int
    linear: float
    nearest: float
    groups: Mapping[str, float]
    cues: tuple[tuple[str, float, bool], ...]


def features(volumes: np.ndarray, spec: VolumeSpec) -> dict[str, np.ndarray]:
    """Plain measures of prepared scans (n, X, Y, Z): name -> (n,)."""
    regions = label_regions(template(spec.name))
    rows = [_features(volume, spec, regions) for volume in volumes]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _features(volume: np.ndarray, spec: VolumeSpec, regions: Mapping[str, np.ndarray]) -> dict[str, float]:
    target, inside = template(spec.name), volume != 0
    core = ndimage.binary_erosion(inside, iterations=2)
    places = {"grey": inside & (target.grey > SURE), "white": core & (target.white > SURE),
              "rim": inside & ~core, **{name: inside & regions[name] for name in ("thalamus", "cerebellum_white")}}
    return {**_intensities(volume, inside, places), **_gradients(volume, core, places),
            **dict(zip(("tissue csf", "tissue grey", "tissue white"), tissue_fractions(volume[inside]))),
            "tissue ventricles": ventricles_ml(volume, spec, regions),
            "outline volume": float(inside.sum()) * spec.spacing_mm**3 / 1000,
            "outline overlap": float((inside & target.brain).sum() / target.brain.sum())}


def _intensities(volume: np.ndarray, inside: np.ndarray, places: Mapping[str, np.ndarray]) -> dict[str, float]:
    values = {f"intensity percentile {p}": float(v) for p, v in zip(PERCENTILES, np.percentile(
        volume[inside], PERCENTILES))}
    for name, mask in places.items():
        values[f"intensity mean, {name}"] = float(volume[mask].mean()) if mask.any() else 0.0
        values[f"intensity spread, {name}"] = float(volume[mask].std()) if mask.any() else 0.0
    return values


def _gradients(volume: np.ndarray, core: np.ndarray, places: Mapping[str, np.ndarray]) -> dict[str, float]:
    slopes = np.linalg.norm(np.gradient(volume), axis=0)
    rough = np.abs(ndimage.laplace(volume))
    values = {f"gradient mean, {name}": float(slopes[mask & core].mean()) if (mask & core).any() else 0.0
              for name, mask in places.items() if name != "rim"}
    values["gradient roughness, white"] = float(rough[places["white"]].mean()) if places["white"].any() else 0.0
    for axis, name in enumerate(("x", "y", "z")):
        both = core & np.roll(core, -1, axis)
        values[f"gradient likeness of neighbours, {name}"] = float(
            np.corrcoef(volume[both], np.roll(volume, -1, axis)[both])[0, 1])
    return values


def ventricles_ml(volume: np.ndarray, spec: VolumeSpec, regions: Mapping[str, np.ndarray] | None = None) -> float:
    """Fluid where ventricles can lie, mL: each voxel by how far it is darker than grey matter. Knows intensity only."""
    regions = regions if regions is not None else label_regions(template(spec.name))
    near = ndimage.binary_dilation(regions["lateral_ventricles"], iterations=max(1, round(6 / spec.spacing_mm)))
    dark = np.clip(1 - volume / DARK, 0, 1) * (volume != 0)
    return float(dark[near].sum()) * spec.spacing_mm**3 / 1000


def separations(real: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray],
                sites: Sequence[str]) -> list[Separation]:
    """Real scans against others, all together and site by site; sites of fewer than ``FEWEST`` scans are left out.

    Args:
        real, other: ``features`` of each. sites: of the real scans.

    Raises:
        HeadstartError: too few scans.
    """
    site = np.asarray(sites)
    if len(site) < FEWEST or len(next(iter(other.values()))) < FEWEST:
        raise HeadstartError(f"fewer than {FEWEST} scans cannot be told apart", fix="Give stores of more scans.")
    names = sorted(name for name in set(site.tolist()) if (site == name).sum() >= FEWEST)
    parts = [("all sites", np.ones(len(site), bool)), *((name, site == name) for name in names)]
    return [separation(name, {key: column[rows] for key, column in real.items()}, other) for name, rows in parts]


def separation(name: str, real: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Separation:
    """How well ``real`` is told from ``other``; both map features to columns."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    keys = list(real)
    x = np.column_stack([np.concatenate([real[key], other[key]]) for key in keys])
    y = np.repeat([1, 0], [len(real[keys[0]]), len(other[keys[0]])])
    linear = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    groups = {group: [i for i, key in enumerate(keys) if key.startswith(group)] for group in GROUPS}
    return Separation(name, int(y.sum()), int((1 - y).sum()), _auroc(linear, x, y),
                      _auroc(KNeighborsClassifier(NEIGHBOURS, weights="distance"), x, y),
                      {group: _auroc(linear, x[:, columns], y) for group, columns in groups.items()},
                      _cues(keys, x, y))


def _auroc(model, x: np.ndarray, y: np.ndarray) -> float:
    """Out of fold; every fold standardises by its own training part."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(make_pipeline(StandardScaler(), model), x, y, cv=folds, method="predict_proba")
    return float(roc_auc_score(y, scores[:, 1]))


def _cues(keys: Sequence[str], x: np.ndarray, y: np.ndarray, wanted: int = 5) -> tuple[tuple[str, float, bool], ...]:
    from sklearn.metrics import roc_auc_score

    alone = [(key, float(roc_auc_score(y, x[:, i]))) for i, key in enumerate(keys)]
    best = sorted(alone, key=lambda item: -abs(item[1] - 0.5))[:wanted]
    return tuple((key, max(score, 1 - score), score > 0.5) for key, score in best)


@dataclass(frozen=True)
class Neighbours:
    """Distance of each scan to its nearest neighbour: root mean square over the template's brain; (n,) each."""

    simulated: np.ndarray
    real: np.ndarray
    real_to_simulated: np.ndarray


def nearest(real: np.ndarray, simulated: np.ndarray, spec: VolumeSpec) -> Neighbours:
    """Nearest-neighbour distances among and between (n, X, Y, Z) scans, of equally many: more scans lie closer."""
    n, brain = min(len(real), len(simulated)), template(spec.name).brain
    r, s = (volumes[:n][:, brain].astype(np.float32) for volumes in (real, simulated))
    return Neighbours(_distances(s, s), _distances(r, r), _distances(r, s))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    if a is b:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(1), 0) / a.shape[1])
