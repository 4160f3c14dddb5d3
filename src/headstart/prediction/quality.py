"""The contract verified: what was found of a scan while it was prepared, and whether a prediction can stand on it.

The limits were set on 96 prepared scans of three sites, of which none is flagged: overlap with the template 0.92 to
0.97, correlation 0.50 to 0.75, brain 1,090 to 1,740 ml, enlarged 1.03 to 1.21 times per axis, turned by up to 26°.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.intensity import HIGHEST, LOWEST
from headstart.brains.scan import LOW_CORRELATION, LOW_OVERLAP, Prepared
from headstart.calibration.familiarity import Familiarity

Verdict = Literal["ok", "flag", "refused", "unknown"]


@dataclass(frozen=True)
class Check:
    """One condition of the contract.

    Attributes:
        name: of the condition; a column-safe word.
        verdict: ``ok``; ``flag``: predicted, but doubtful; ``refused``: not predicted; ``unknown``: not checked.
        found: what was found, with its unit.
        wanted: what was expected.
    """

    name: str
    verdict: Verdict
    found: str
    wanted: str


@dataclass(frozen=True)
class Limit:
    """A number, the range in which it is fine, and the wider one outside which there is no prediction."""

    name: str
    fine: tuple[float, float]
    possible: tuple[float, float] = (-np.inf, np.inf)
    unit: str = ""
    digits: int = 2

    def check(self, value: float) -> Check:
        verdict: Verdict = "ok"
        if not self.fine[0] <= value <= self.fine[1]:
            verdict = "flag"
        if not self.possible[0] <= value <= self.possible[1]:  # also NaN
            verdict = "refused"
        return Check(self.name, verdict, f"{value:.{self.digits}f}{self.unit}", self._wanted())

    def _wanted(self) -> str:
        low, high = (f"{bound:.{self.digits}f}{self.unit}" for bound in self.fine)
        if np.isinf(self.fine[1]):
            return f"at least {low}"
        return f"{low} to {high}" if np.isfinite(self.fine[0]) else f"at most {high}"


LIMITS = {
    "spacing": Limit("spacing", (-np.inf, 2.5), (0.1, 6.0), " mm"),
    "orientation": Limit("orientation", (-np.inf, 35.0), (0.0, 90.0), "°", 0),
    "brain_volume": Limit("brain_volume", (850.0, 2000.0), unit=" ml", digits=0),
    "overlap": Limit("overlap", (LOW_OVERLAP, np.inf), (0.80, np.inf)),
    "correlation": Limit("correlation", (LOW_CORRELATION, np.inf), (0.20, np.inf)),
    "enlargement": Limit("enlargement", (0.90, 1.35), (0.70, 1.70)),
    "intensity": Limit("intensity", (-np.inf, 12.0), (0.0, 40.0), " % clipped", 1),
}


def check_preparation(prepared: Prepared, contract: Contract) -> tuple[Check, ...]:
    """Every condition that shows in the prepared scan."""
    facts = prepared.facts
    measured = {
        "spacing": max(facts.voxel_size_mm), "orientation": rotation_degrees(facts), "brain_volume":
        facts.brain_volume_ml, "overlap": facts.overlap, "correlation": facts.correlation,
        "enlargement": facts.linear_scale, "intensity": 100 * clipped_share(prepared.volume)}
    return (_grid(prepared, contract), _extraction(facts),
            *(LIMITS[name].check(value) for name, value in measured.items()))


def check_familiarity(features: np.ndarray, familiarity: Familiarity | None) -> Check:
    """Whether the scan looks, to the network, like those it learnt from; ``features`` is (d,)."""
    if familiarity is None:
        return Check("familiarity", "unknown", "the model does not say what its training scans look like", "")
    distance = float(familiarity.distance(features[None])[0])
    p = familiarity.p_value(distance)
    if p is None:
        return Check("familiarity", "unknown", f"distance {distance:.2f}", "nobody was held out to compare with")
    return Check("familiarity", "flag" if p <= familiarity.alarm else "ok",
                 f"distance {distance:.2f}, p = {p:.3f}", f"p above {familiarity.alarm:.3f}")


def check_range(value: float, targets: tuple[float, float] | None, unit: str) -> tuple[Check, ...]:
    """Whether a predicted number lies among those that the model was trained on; nothing where that is not known."""
    if targets is None:
        return ()
    inside = targets[0] <= value <= targets[1]
    found, (low, high) = f"{value:.1f} {unit}".rstrip(), (f"{bound:.1f} {unit}".rstrip() for bound in targets)
    return (Check("range", "ok" if inside else "flag", found, f"{low} to {high}, as in training"),)


def contract_words(contract: Contract) -> str:
    """The steps that a scan goes through, in order."""
    spec = contract.spec
    bias = "N4 bias correction" if contract.bias_correction == "n4" else "no bias correction"
    grid = "×".join(map(str, spec.shape))
    return (f"{contract.orientation}+, {contract.brain_extraction} where the skull is on, {bias}, "
            f"{contract.registration} registration to {contract.space}, one resampling to {grid} at "
            f"{spec.spacing_mm:g} mm, intensities {contract.intensity} (contract {contract.digest})")


def overall(checks: tuple[Check, ...]) -> Verdict:
    """The worst verdict; ``unknown`` does not count."""
    verdicts = {check.verdict for check in checks}
    return "refused" if "refused" in verdicts else "flag" if "flag" in verdicts else "ok"


def rotation_degrees(facts: Facts) -> float:
    """How far the head is turned from the template, by the rotation nearest to the registration's linear part."""
    left, _, right = np.linalg.svd(np.array(facts.affine)[:3, :3])
    return float(np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))))


def clipped_share(volume: np.ndarray) -> float:
    """Share of the brain's voxels at either end of the intensity scale."""
    brain = volume[volume != 0]
    return float(((brain <= LOWEST) | (brain >= HIGHEST)).mean()) if len(brain) else 1.0


def _grid(prepared: Prepared, contract: Contract) -> Check:
    spec, shape = contract.spec, "×".join(map(str, prepared.volume.shape))
    right = prepared.volume.shape == spec.shape and bool(np.isfinite(prepared.volume).all())
    wanted = f"{'×'.join(map(str, spec.shape))} at {spec.spacing_mm:g} mm, RAS+, {contract.space}"
    return Check("grid", "ok" if right else "refused", f"{shape} at {spec.spacing_mm:g} mm", wanted)


def _extraction(facts: Facts) -> Check:
    found = "came without its skull" if facts.already_extracted else "skull removed by deepbet"
    return Check("extraction", "ok", found, "brain only")
