"""The paper's claims one by one, each beside what this benchmark found; simulated and real cohorts kept apart.

The abstract of arXiv 2309.04651 gives gains without saying of which upstream, in which score, or whether they are
points or relative. So a claim is held against the mean gain over all head starts that it may be about (nothing is
picked out), in AUROC or years, at the largest training size unless it speaks of little data, and read in both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from headstart.benchmark_report.collect import CONTROL, Key, Study, domain_of, family_of, is_head_start
from headstart.benchmark_report.comparisons import ALPHA, gain_unit, pair_of
from headstart.evaluation.gains import Gain, Pair, mean_gain, mean_over_tasks, same_seeds
from headstart.evaluation.results import FEWEST_SEEDS
from headstart.evaluation.statistics import Estimate, holm

MEANINGFUL_PERCENT = 2.0  # a claim without a figure does not hold where even the interval's upper end is below this
INSIDE, OUTSIDE = "inside", "outside"
PAPER = "arXiv 2309.04651"


@dataclass(frozen=True)
class Claim:
    """What the abstract says, and which rows speak to it.

    Attributes:
        figure: as printed; value: the number, for tasks with one claim each; None where the abstract gives none.
        in_units: the figure is in the target's unit, not per cent.
        task: the task it is about; empty: all, averaged in per cent.
        chosen: which rows.
        smallest: at the smallest training size, not the largest.
        partition: where it was tested.
        robustness: scratch of CNNs against scratch of ViTs, not starts against scratch.
    """

    name: str
    text: str
    figure: str
    value: float | None
    task: str
    chosen: Callable[[Key], bool]
    partition: str = INSIDE
    in_units: bool = False
    smallest: bool = False
    robustness: bool = False
    ours: bool = False


def _family(family: str, *domains: str) -> Callable[[Key], bool]:
    return lambda key: (family_of(key.backbone) == family and is_head_start(key.upstream)
                        and (not domains or domain_of(key.upstream) in domains))


def _any(key: Key) -> bool:
    return is_head_start(key.upstream)


CLAIMS = (
    Claim("vit-ad", "Pre-training improves the classification of Alzheimer’s disease with the ViT",
          "+7.4 % (SPIE: +7.5 %)", 7.4, "ad", _family("ViT")),
    Claim("vit-pd", "Pre-training improves the classification of Parkinson’s disease with the ViT",
          "+4.6 % (SPIE: +4.5 %)", 4.6, "pd", _family("ViT")),
    Claim("cnn-pd", "Pre-training improves the classification of Parkinson’s disease with the CNN", "+19.1 %", 19.1,
          "pd", _family("CNN")),
    Claim("cnn-age", "Pre-training lowers the error of brain age with the CNN", "−1.26 years", 1.26, "brain-age",
          _family("CNN"), in_units=True),
    Claim("vit-video", "Video pre-training helps ViTs", "no figure", None, "", _family("ViT", "video")),
    Claim("vit-synthetic", "Synthetic-MRI pre-training helps ViTs", "no figure", None, "",
          _family("ViT", "synthetic-mri")),
    Claim("cnn-limited", "CNNs are robust with limited data (here: scratch CNNs against scratch ViTs)", "no figure",
          None, "", lambda key: key.upstream == "scratch", smallest=True, robustness=True),
    Claim("cnn-domain", "CNNs gain from in-domain (MRI) pre-training", "no figure", None, "",
          _family("CNN", "synthetic-mri", "real-mri")),
    Claim("generalises", "Pre-training improves generalisation to other data sets and sites", "no figure", None, "",
          _any, partition=OUTSIDE),
    Claim("little-data", "Pre-trained models adapt to many tasks even with little data", "no figure", None, "", _any,
          smallest=True),
    Claim("control", "Our check: training alone (a start from shuffled labels) is worth something", "not in the paper",
          None, "", lambda key: domain_of(key.upstream) == CONTROL, ours=True),
)


@dataclass(frozen=True)
class Finding:
    """A claim on one kind of cohort.

    Attributes:
        gain: ours, in ``unit``; percent: the same in per cent of scratch.
        starts: how many starts (or pairs of backbones) the mean is over; tasks: their names.
        p_holm: adjusted over the claims on this kind of cohort.
    """

    claim: Claim
    simulated: bool
    gain: Estimate
    unit: str
    percent: Estimate
    p: float | None
    starts: int
    tasks: tuple[str, ...]
    seeds: int
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """``holds``, ``does not hold`` or ``cannot be told``."""
        low, high = self.percent.low, self.percent.high
        if low is None or high is None or self.seeds < FEWEST_SEEDS:
            return "cannot be told"
        told = self.p_holm is not None and self.p_holm < ALPHA
        if told and (self.gain.value or 0) > 0:
            return "holds"
        return "does not hold" if (told or high < MEANINGFUL_PERCENT) or self._too_small else "cannot be told"

    @property
    def _too_small(self) -> bool:
        """Whether the interval excludes both no harm and the paper's figure, in points and in per cent."""
        if self.claim.value is None or self.gain.high is None or self.percent.high is None:
            return False
        ends = [self.gain.high] if self.claim.in_units else [self.gain.high, self.percent.high]
        return max(ends) < self.claim.value

    @property
    def remark(self) -> str:
        """What else a reader should know."""
        if self.gain.value is None:
            return self.gain.reason or "nothing in this benchmark speaks to it"
        if self.seeds < FEWEST_SEEDS:
            return f"fewer than {FEWEST_SEEDS} seeds"
        if self._too_small:
            return "smaller than the paper’s figure, however that is read"
        return ""


def findings(study: Study) -> list[Finding]:
    """Every claim, on simulated and on real cohorts as far as the benchmark has them; p adjusted within each kind."""
    found = []
    for simulated in sorted({task.simulated for task in study.tasks}):
        kind = [_finding(study, claim, simulated) for claim in CLAIMS]
        found += [replace(one, p_holm=p) for one, p in zip(kind, holm([one.p for one in kind]), strict=True)]
    return found


def _finding(study: Study, claim: Claim, simulated: bool) -> Finding:
    names = [task.name for task in study.tasks if task.simulated == simulated and claim.task in ("", task.task)]
    by_task = [(name, pairs) for name in names if (pairs := _pairs(study, claim, name))]
    if not by_task:
        nothing = Estimate(None, None, None, 0, "this benchmark has no such rows")
        return Finding(claim, simulated, nothing, "", nothing, None, 0, (), 0)
    gains = [mean_gain(study.bootstraps[claim.partition], pairs, study.metric(name)) for name, pairs in by_task]
    absolute, percent, p = _pooled(study, [name for name, _ in by_task], gains)
    unit = gain_unit(study.metric(by_task[0][0]), study.benchmark.plan.task(by_task[0][0]).unit)
    if absolute is None:
        absolute, unit = percent, "% of scratch"
    return Finding(claim, simulated, absolute, unit, percent, p, max(len(pairs) for _, pairs in by_task),
                   tuple(name for name, _ in by_task), min(one.seeds for one in gains))


def _pooled(study: Study, names: Sequence[str], gains: Sequence[Gain],
            ) -> tuple[Estimate | None, Estimate, float | None]:
    """Absolute (where tasks share a scale), per cent, p."""
    if len(gains) == 1:
        return gains[0].absolute, gains[0].relative, gains[0].p
    percent, p = mean_over_tasks([one.relative for one in gains], same_people=share_people(study, names))
    if len({study.metric(name).name for name in names}) > 1:
        return None, percent, p
    absolute, p = mean_over_tasks([one.absolute for one in gains], same_people=share_people(study, names))
    return absolute, percent, p


def share_people(study: Study, names: Sequence[str]) -> bool:
    """Whether anyone was tested in more than one of the tasks."""
    people = [_people(study, name) for name in names]
    return sum(map(len, people)) > len(set().union(*people))


def _people(study: Study, task: str) -> set[tuple[str, str]]:
    """Everyone who was tested; people of two simulated cohorts are others, whatever they are called."""
    cohort = str(study.benchmark.plan.task(task).simulate)
    return {(cohort, subject) for key, tables in study.tables.items() if key.task == task
            for table in tables.values() for subject in table.subject}


def _pairs(study: Study, claim: Claim, task: str) -> list[Pair]:
    """What the claim compares on a task; all pairs have the same people, and the seeds that all have."""
    size = study.sizes(task)[0] if claim.smallest else study.largest(task)
    keys = [key for key in study.keys if (key.task, key.size) == (task, size) and claim.chosen(key)]
    pairs = list(_robustness(study, keys, claim.partition) if claim.robustness else
                 (pair_of(study, key, claim.partition) for key in keys if key in study.starts))
    return same_seeds([pair for pair in pairs if pair is not None])


def _robustness(study: Study, keys: Sequence[Key], partition: str) -> Iterator[Pair | None]:
    """Every CNN against every ViT."""
    tables = {family: [study.tables[key][partition] for key in keys if family_of(key.backbone) == family
                       and partition in study.tables[key]] for family in ("CNN", "ViT")}
    for cnn in tables["CNN"]:
        for vit in tables["ViT"]:
            yield Pair.of(cnn, vit)
