"""The tables of the report: cells with the text that people read and the value that columns sort by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headstart.benchmark_report.claims import Finding
from headstart.benchmark_report.collect import Key, Study, domain_of, floor_title
from headstart.benchmark_report.comparisons import Comparison, gain_unit
from headstart.benchmark_report.curves import Saved
from headstart.benchmark_report.groups import Gap, GroupGain, Trust
from headstart.benchmark_report.pooled import PooledGain
from headstart.evaluation.few_shot import Worth
from headstart.evaluation.gains import Gain
from headstart.evaluation.metrics import METRICS, Metric
from headstart.evaluation.predictions import PARTITIONS
from headstart.evaluation.statistics import Estimate
from headstart.evaluation.summary import interval, number

DASH = "–"
MARKS = {"better": "▲ better", "worse": "▼ worse", "cannot be told": "≈ cannot be told", "holds": "✓ holds",
         "does not hold": "✗ does not hold"}


@dataclass(frozen=True)
class Cell:
    """Text, a smaller line under it, what its column sorts by (the text, unless given), and a class for its style."""

    text: str
    small: str = ""
    value: float | str | None = None
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A sortable table.

    Attributes:
        filters: columns to choose a value of, by position.
    """

    name: str
    caption: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    filters: tuple[int, ...] = ()

    def choices(self, column: int) -> list[str]:
        """What a column holds, in order of appearance."""
        return list(dict.fromkeys(row[column].text for row in self.rows))


def text(value: str, style: str = "text") -> Cell:
    return Cell(value, style=style)


def signed(value: float | None, digits: int = 1) -> str:
    """A gain with its sign; the minus is a minus."""
    if value is None:
        return DASH
    shown = f"{value:+.{digits}f}"
    return (shown if float(shown) else f"{0:.{digits}f}").replace("-", "−")


def signed_interval(estimate: Estimate, digits: int = 1) -> str:
    if estimate.low is None:
        return estimate.reason
    return f"{signed(estimate.low, digits)} to {signed(estimate.high, digits)}"


def gain_digits(unit: str) -> int:
    return 1 if unit in ("points", "%", "% of scratch") else 2


def gain_cell(estimate: Estimate, unit: str) -> Cell:
    """Effect first, interval under it."""
    digits = gain_digits(unit)
    shown = signed(estimate.value, digits) + (f" {unit}" if estimate.value is not None else "")
    return Cell(shown, signed_interval(estimate, digits), estimate.value if estimate.value is not None else "")


def score_cell(estimate: Estimate, metric: Metric) -> Cell:
    value = estimate.value if estimate.value is not None else ""
    return Cell(number(estimate.value, metric), interval(estimate, metric) or estimate.reason, value)


def floor_cell(floor: tuple[str, Estimate] | None, metric: Metric) -> Cell:
    """The best floor's score, and which it is; its interval is in the tables for machines."""
    if floor is None:
        return Cell(DASH, value="")
    cell = score_cell(floor[1], metric)
    return Cell(cell.text, floor[0].lower(), cell.value)


def p_text(p: float | None) -> str:
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_cell(p: float | None, small: str = "") -> Cell:
    return Cell(p_text(p), small, "" if p is None else p, "quiet")


def verdict_cell(verdict: str) -> Cell:
    return Cell(MARKS[verdict], value=verdict, style=f"verdict {verdict.split()[0]}")


def cohort(simulated: bool) -> str:
    return "simulated" if simulated else "real"


def start_cell(upstream: str, overlaps: Sequence[str]) -> Cell:
    """The start; a dagger where it may have seen the people that it is tested on."""
    return text(upstream + (" †" if overlaps else ""))


def size_cell(study: Study, key: Key) -> Cell:
    n = study.n_train(key)
    return Cell(f"{n}", "all" if key.size == "full" else "", n)


# --- the tables


def claims_table(findings: Sequence[Finding]) -> Table:
    """One row a claim and kind of cohort."""
    rows = tuple((Cell(one.claim.text, ", ".join(one.tasks), style="claim"), _figure(one.claim.figure),
                  text(cohort(one.simulated)), _ours(one),
                  Cell(signed(one.percent.value) + (" %" if one.percent.value is not None else ""),
                       signed_interval(one.percent) if one.percent.value is not None else "",
                       one.percent.value if one.percent.value is not None else ""),
                  p_cell(one.p_holm), Cell(str(one.gain.n or DASH), value=one.gain.n), _judged(one))
                 for one in findings)
    return Table("claims", "One by one", "mean over all starts that a claim may be about; p "
                 "adjusted over the claims on one kind of cohort (Holm)",
                 ("Claim", "The paper", "Cohort", "Ours, 95 % interval", "Relative to scratch", "p, adjusted", "n",
                  "Verdict"), rows)


def _figure(printed: str) -> Cell:
    """The figure of arXiv; that of SPIE, where it differs, under it."""
    first, _, other = printed.removesuffix(")").partition(" (")
    return Cell(first, other, style="text")


def _ours(one: Finding) -> Cell:
    return Cell(DASH, value="") if one.gain.value is None else gain_cell(one.gain, one.unit)


def _judged(one: Finding) -> Cell:
    cell = verdict_cell(one.verdict)
    count = f"with n = {one.gain.n}" if one.verdict == "cannot be told" and one.gain.n else ""
    return Cell(cell.text, "; ".join(part for part in (count, one.remark) if part), cell.value, cell.style)


def gains_table(study: Study, comparisons: Sequence[Comparison]) -> Table:
    """Every comparison with scratch."""
    rows = tuple((text(one.key.task), text(one.key.backbone), start_cell(one.key.upstream, one.overlaps),
                  size_cell(study, one.key), text(one.partition), score_cell(one.scratch, one.metric),
                  score_cell(one.start, one.metric), gain_cell(one.gain.absolute, gain_unit(one.metric, one.unit)),
                  gain_cell(one.gain.relative, "%"), floor_cell(one.floor, one.metric),
                  p_cell(one.p_holm, _unadjusted(one.gain)),
                  Cell(str(one.gain.absolute.n), f"{one.gain.seeds} seeds", one.gain.absolute.n),
                  verdict_cell(one.verdict)) for one in comparisons)
    return Table("gains", "Every comparison with scratch", "same backbone, same training people, same test people, "
                 "same seeds; a positive gain favours the start; p adjusted within a training size (Holm), unadjusted "
                 "under it; DeLong’s p is shown, and does not decide; the best floor is the simple predictor that "
                 "does best on the same people; a relative gain also carries how sure scratch’s own score is, so that "
                 "its interval may hold zero where that of the gain does not",
                 ("Task", "Backbone", "Start", "Trained on", "Tested", "Scratch", "Start’s score", "Gain",
                  "Relative gain", "Best floor", "p, adjusted", "n", "Start is"), rows, (0, 1, 2, 3, 4, 12))


def _unadjusted(gain: Gain) -> str:
    delong = "" if gain.p_delong is None else f", DeLong {p_text(gain.p_delong)}"
    return f"{p_text(gain.p)}{delong}"


def scores_table(study: Study) -> Table:
    """Every row's primary score, inside and outside, with the floors."""
    rows = [(text(key.task), text(key.backbone), start_cell(key.upstream, study.overlaps(key)), size_cell(study, key),
             text(study.metric(key.task).label), *_by_partition(study, study.tables[key], study.metric(key.task)))
            for key in study.keys]
    return Table("scores", "All scores", "mean over seeds, 95 % intervals over people and seeds; floors are simple "
                 "predictors trained on the same people", ("Task", "Backbone", "Start", "Trained on", "Score", "Inside",
                                                           "n inside", "Outside", "n outside"),
                 (*rows, *_floor_rows(study)), (0, 1, 2, 3))


def _floor_rows(study: Study) -> Iterator[tuple[Cell, ...]]:
    for task, floors in study.floors.items():
        metric = study.metric(task)
        for (name, size), tables in floors.items():
            yield (text(task), text("floor"), text(floor_title(name)), _floor_size(study, task, size),
                   text(metric.label), *_by_partition(study, tables, metric))


def _floor_size(study: Study, task: str, size: object) -> Cell:
    alike = next((key for key in study.keys if (key.task, key.size) == (task, size)), None)
    return size_cell(study, alike) if alike else Cell(str(size))


def _by_partition(study: Study, tables: dict, metric: Metric) -> Iterator[Cell]:
    for partition in PARTITIONS:
        if partition in tables:
            found = study.score(tables[partition], partition, metric)
            yield from (score_cell(found, metric), Cell(str(found.n), value=found.n))
        else:
            yield from (Cell(DASH, value=""), Cell(DASH, value=""))


def saved_table(saved: Sequence[Saved], study: Study) -> Table:
    """What the smallest training size with a start is worth in scans of scratch."""
    rows = tuple((text(one.key.task), text(one.key.backbone), start_cell(one.key.upstream, study.overlaps(one.key)),
                  text(one.partition), Cell(f"{one.worth.scans:.0f}", value=one.worth.scans),
                  Cell(_bounded(one.worth, 0), f"{_bounded(one.worth, 1)} to {_bounded(one.worth, 2)}",
                       one.worth.value),
                  _saved(one.worth)) for one in saved)
    return Table("saved", "What a head start is worth in labelled scans", "scratch’s curve, made monotone, read the "
                 "other way round; ≥ and ≤ mark the ends of that curve: beyond them nothing was measured, and an "
                 "interval from one end to the other tells nothing",
                 ("Task", "Backbone", "Start", "Tested", "Labelled scans used", "Scratch needs", "Scans saved"), rows,
                 (0, 3))


def _saved(worth: Worth) -> Cell:
    """Scans that need no label, where the interval says anything of them."""
    if not worth.told:
        return Cell(MARKS["cannot be told"], value="")
    beyond = " or more" if worth.at_least[0] else " or fewer" if worth.at_most[0] else ""
    low, high = (end - worth.scans for end in (worth.low, worth.high))
    between = (f"{signed(low, 0)}{' or fewer' if worth.at_most[1] else ''} to {signed(high, 0)}"
               f"{' or more' if worth.at_least[2] else ''}")
    return Cell(signed(worth.saved, 0) + beyond, between, worth.saved)


def _bounded(worth: Worth, place: int) -> str:
    mark = "≥ " if worth.at_least[place] else "≤ " if worth.at_most[place] else ""
    return f"{mark}{(worth.value, worth.low, worth.high)[place]:.0f}"


def gaps_table(study: Study, gaps: Sequence[Gap]) -> Table:
    """Inside minus outside, and whether a start narrows it."""
    def unit(key: Key) -> str:
        return gain_unit(study.metric(key.task), study.task(key).unit)

    rows = tuple((text(one.key.task), text(one.key.backbone), start_cell(one.key.upstream, study.overlaps(one.key)),
                  gain_cell(one.loss, unit(one.key)),
                  gain_cell(one.narrowed, unit(one.key)) if one.narrowed else Cell(DASH, value=""), p_cell(one.p))
                 for one in gaps)
    return Table("gaps", "What is lost at other sites", "inside minus outside, positive where outside is worse; other "
                 "people, so the loss also holds what differs between them; narrowing is scratch’s loss minus the "
                 "start’s, its p unadjusted", ("Task", "Backbone", "Start", "Lost outside", "Narrowed by", "p"), rows,
                 (0,))


def pooled_table(pooled: Sequence[PooledGain]) -> Table:
    """Everyone tested outside, over the tasks that leave out different sites."""
    rows = tuple((text(one.pool.name), text(one.backbone), start_cell(one.upstream, one.overlaps),
                  text(one.metric.label), score_cell(one.score, one.metric), text(one.other),
                  score_cell(one.other_score, one.metric), gain_cell(one.gain.absolute, one.unit),
                  p_cell(one.p_holm, p_text(one.gain.p)),
                  Cell(str(one.gain.absolute.n), f"{one.gain.seeds} seeds", one.gain.absolute.n), _sites(one),
                  verdict_cell(one.verdict)) for one in pooled)
    return Table("pooled", "Everyone tested outside", "tasks that leave out different sites of one cohort, pooled: "
                 "each person is predicted by the model that never saw the person’s site; outputs are compared within "
                 "sites, or in the target’s unit; p adjusted over all comparisons with scratch, or with floors "
                 "(Holm), unadjusted under it", ("Task", "Backbone", "Start", "Score", "Start’s score", "Against",
                                         "Its score", "Gain", "p, adjusted", "n", "Gain by site", "Start is"), rows,
                 (0, 1, 2, 3, 5))


def _sites(one: PooledGain) -> Cell:
    """The gain at each site; whether they agree in sign."""
    digits = gain_digits(one.unit)
    shown = ", ".join(f"{site} {signed(found.value, digits)}" for site, found in one.by_site.items())
    return Cell(shown or DASH, "same sign at every site" if one.same_sign else "", style="text")


def groups_table(groups: Sequence[GroupGain], study: Study) -> Table:
    """Gains by site, sex and age band."""
    rows = tuple((text(one.key.task), text(one.key.backbone), start_cell(one.key.upstream, study.overlaps(one.key)),
                  text(one.partition), text(one.grouping), text(one.group),
                  score_cell(one.score, study.metric(one.key.task)), floor_cell(one.floor, study.metric(one.key.task)),
                  gain_cell(one.gain.absolute, gain_unit(study.metric(one.key.task), study.task(one.key).unit)),
                  Cell(str(one.gain.absolute.n), value=one.gain.absolute.n)) for one in groups)
    return Table("groups", "Gains by group", "at the largest training size; exploratory: intervals are not adjusted, "
                 "and differences between groups are not tested",
                 ("Task", "Backbone", "Start", "Tested", "By", "Group", "Start’s score", "Best floor",
                  "Gain over scratch", "n"), rows, (0, 2, 3, 4))


def trust_table(study: Study, found: Sequence[Trust], kind: str) -> Table | None:
    """Calibration of classifications, or brain age before and after bias correction."""
    names = ("brier", "ece") if kind == "classification" else ("mae", "r")
    rows = tuple(_trust_row(study, one, names) for one in found if study.task(one.key).kind == kind)
    columns = tuple(f"{METRICS[name].label}, {partition}" for name in names for partition in PARTITIONS)
    if not rows:
        return None
    if kind == "classification":
        return Table("calibration", "Calibration", "lower is better; the error (ECE) is biased upwards when n is small",
                     ("Task", "Backbone", "Start", *columns), rows, (0,))
    corrected = tuple(f"{METRICS[name].label}, {partition}, corrected" for name in names for partition in PARTITIONS)
    return Table("bias", "Brain age, uncorrected and then corrected", "the correction uses the true age, which makes "
                 "even a model that knows nothing look good: judge by the uncorrected scores",
                 ("Task", "Backbone", "Start", *columns, *corrected), rows, (0,))


def _trust_row(study: Study, one: Trust, names: Sequence[str]) -> tuple[Cell, ...]:
    cells = [text(one.key.task), text(one.key.backbone), start_cell(one.key.upstream, study.overlaps(one.key))]
    pairs = [(name, partition) for name in names for partition in PARTITIONS]
    cells += [_or_dash(one.scores.get((partition, name)), name) for name, partition in pairs]
    if names[0] == "mae":
        cells += [_or_dash(getattr(one.corrected, partition)[name] if one.corrected else None, name)
                  for name, partition in pairs]
    return tuple(cells)


def _or_dash(estimate: Estimate | None, metric: str) -> Cell:
    return score_cell(estimate, METRICS[metric]) if estimate else Cell(DASH, value="")


def starts_table(study: Study) -> Table:
    """What each start is."""
    rows = tuple((text(row.upstream), text(row.backbone), text(domain_of(row.upstream)), text(row.mode),
                  text(row.weights, "digest")) for row in study.benchmark.plan.rows)
    return Table("starts", "The starts", "", ("Start", "Backbone", "Trained on", "Mode", "Weights"), rows)
