"""How unlike the training scans is this one? A Gaussian of the features, and distances of people it had not seen.

The features follow probabilistic PCA (Tipping and Bishop 1999): a mean, a few axes, one spread for all the rest. It is
a summary: no feature of any single person is stored. A new scan's distance is ranked among those of held-out people,
which gives a conformal p value (Bates et al., "Testing for outliers with conformal p-values", Ann. Statist. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.errors import HeadstartError
from headstart.files import atomic_write

MOST_AXES = 16
SCANS_PER_AXIS = 8
ALARM = 0.02  # share of familiar scans that are flagged by mistake


@dataclass(frozen=True)
class Familiarity:
    """What the features of a model's training scans look like.

    Attributes:
        mean: (d,).
        axes: (k, d), orthonormal; the directions in which training scans differ most.
        axis_sd: (k,), standard deviations along them.
        rest_sd: standard deviation in every direction that is left.
        distances: (n,) ascending, of held-out people, one each; empty where nobody was held out.
    """

    mean: np.ndarray
    axes: np.ndarray
    axis_sd: np.ndarray
    rest_sd: float
    distances: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, distances: np.ndarray | None = None) -> Familiarity:
        """Summarise ``features`` (n, d), n of at least 2."""
        features = np.asarray(features, np.float64)
        mean = features.mean(0)
        _, singular, axes = np.linalg.svd(features - mean, full_matrices=False)
        variances = singular**2 / (len(features) - 1)
        k = int(np.clip(len(features) // SCANS_PER_AXIS, 1, min(MOST_AXES, len(variances))))
        rest = variances[k:].sum() / max(features.shape[1] - k, 1)
        floor = 1e-6 * max(float(np.sqrt(variances[0])), 1e-12)
        return cls(mean, axes[:k], np.maximum(np.sqrt(variances[:k]), floor), max(float(np.sqrt(rest)), floor),
                   np.sort(np.asarray(distances if distances is not None else [], np.float64)))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distances of ``features`` (n, d), per dimension: (n,), about 1 for training scans."""
        centred = np.asarray(features, np.float64) - self.mean
        along = centred @ self.axes.T
        rest = (centred**2).sum(1) - (along**2).sum(1)
        total = ((along / self.axis_sd) ** 2).sum(1) + np.maximum(rest, 0) / self.rest_sd**2
        return np.sqrt(total / len(self.mean))

    def p_value(self, distance: float) -> float | None:
        """Share of held-out people at least as far away, counting this one; None without held-out people."""
        if not len(self.distances):
            return None
        return float(1 + (self.distances >= distance).sum()) / (len(self.distances) + 1)

    @property
    def alarm(self) -> float:
        """The p value at or below which a scan counts as unfamiliar: as few people allow."""
        return max(ALARM, 1 / (len(self.distances) + 1))

    def write(self, path: Path) -> None:
        """Write as safetensors, whole or not at all."""
        from safetensors.numpy import save

        arrays = {"mean": self.mean, "axes": self.axes, "axis_sd": self.axis_sd,
                  "rest_sd": np.array([self.rest_sd]), "distances": self.distances}
        with atomic_write(path, "wb") as file:
            file.write(save({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}))

    @classmethod
    def read(cls, path: Path) -> Familiarity:
        """Read what ``write`` wrote.

        Raises:
            HeadstartError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = {name: array.astype(np.float64) for name, array in load_file(path).items()}
            rest = float(arrays.pop("rest_sd")[0])
            found = cls(**arrays, rest_sd=rest)
            found._check()
        except (OSError, SafetensorError, TypeError, KeyError, IndexError, ValueError) as error:
            raise HeadstartError(f"is damaged ({error})", path=path,
                                 fix="Copy the model folder again, whole.") from error
        return found

    def _check(self) -> None:
        (d,), k = self.mean.shape, len(self.axis_sd)
        if self.axes.shape != (k, d) or not (self.axis_sd > 0).all() or not self.rest_sd > 0:
            raise ValueError("its arrays do not belong together")
        if not all(np.isfinite(array).all() for array in (self.mean, self.axes, self.axis_sd, self.distances)):
            raise ValueError("it holds numbers that are not finite")
