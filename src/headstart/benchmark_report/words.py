"""A benchmark in plain words, for a reader who has never trained a network; and its methods, for a paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from headstart.benchmark_report.claims import MEANINGFUL_PERCENT, Finding
from headstart.benchmark_report.collect import Study, is_head_start
from headstart.benchmark_report.comparisons import Comparison, gain_unit
from headstart.benchmark_report.pooled import pools
from headstart.benchmark_report.tables import gain_digits, signed, signed_interval
from headstart.evaluation.results import FEWEST_SEEDS, SMALL
from headstart.evaluation.statistics import REPLICATES
from headstart.evaluation.summary import number
from headstart.report.words import ASKED_FIRST, TASKS

FROZEN_MODES = ("probe", "knn", "frozen")
FROZEN = (" Only a read-out learned from the labels: features stayed as they were, scratch being a network that never "
          "learned anything. What fine-tuning makes of a start is another question.")
MISSING = "Cells that are not done are missing from every number below."


def task_title(task: str) -> str:
    """A task as a heading; one whose name holds the site that is left out keeps it."""
    return TASKS.get(task, task)


def task_words(task: str) -> str:
    """A task within a sentence: names of diseases keep their capital."""
    title = task_title(task)
    return title if "’s disease" in title else title[0].lower() + title[1:]


def cohorts(study: Study) -> str:
    """``Simulated``, ``Real``, or both."""
    kinds = {task.simulated for task in study.tasks}
    return "Simulated and real cohorts" if len(kinds) == 2 else "Simulated cohorts" if True in kinds else "Real cohorts"


def summary(study: Study, comparisons: Sequence[Comparison], findings: Sequence[Finding]) -> list[str]:
    """What was asked, what came out, what the control says, how the paper's claims fare, and what it means."""
    return [_asked(study), *_answers(study, comparisons), *_control(findings), *_claims(findings), *_meaning(study)]


def _asked(study: Study) -> str:
    plan = study.benchmark.plan
    starts = [row for row in plan.rows if is_head_start(row.upstream)]
    tasks = listed([task_words(task.name) for task in study.tasks])
    sizes = sorted({study.n_train(key) for key in study.keys})
    span = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}" if sizes else "no"
    return (f"Does a model that has learned from something else first make better use of a few labelled brain scans? "
            f"{plural(len({row.upstream for row in starts}), 'head start')} in "
            f"{plural(len(plan.backbones), 'network')} were each compared with the same network starting from "
            f"scratch, on {tasks}, with {span} labelled scans and {plural(len(plan.seeds), 'random seed')}."
            f"{FROZEN if plan.mode in FROZEN_MODES else ''}")


def _answers(study: Study, comparisons: Sequence[Comparison]) -> Iterator[str]:
    main = [one for one in comparisons if one.key.size == study.largest(one.key.task)
            and is_head_start(one.key.upstream)]
    for simulated in sorted({one.simulated for one in main}):
        yield _answer([one for one in main if one.simulated == simulated], simulated)


def _answer(main: Sequence[Comparison], simulated: bool) -> str:
    counts = Counter(one.verdict for one in main)
    where = "On simulated brains" if simulated else "On real scans"
    said = (f"{where}, with all training scans, {counts['better']} of {len(main)} comparisons show a gain that can be "
            f"told from chance, {counts['worse']} show harm, and {counts['cannot be told']} cannot be told.")
    known = [one for one in main if one.floor is not None]
    beyond = [one for one in known if beats(one)]
    if known:
        said += (f" In {len(beyond)} of {len(known)} the start does better, as a mean, than the best simple predictor "
                 "(outline, tissue, voxels, age and sex) on the same people.")
    better = [one for one in main if one.verdict == "better"]
    if not better:
        return said
    clearest = max(better, key=lambda one: (one.gain.relative.low or 0.0))
    unit = gain_unit(clearest.metric, clearest.unit)
    digits = gain_digits(unit)
    return (f"{said} The surest gain is that of {clearest.key.upstream} in {clearest.key.backbone} for "
            f"{task_words(clearest.key.task)} {clearest.partition} the training sites: "
            f"{signed(clearest.gain.absolute.value, digits)} {unit} (95 % interval "
            f"{signed_interval(clearest.gain.absolute, digits)}, n = {clearest.gain.absolute.n}): {_scores(clearest)}.")


def beats(one: Comparison) -> bool:
    """Whether a start's mean score is better than that of the best floor."""
    if one.floor is None or one.start.value is None or one.floor[1].value is None:
        return False
    return (one.start.value > one.floor[1].value) == (one.metric.better == "higher")


def _scores(one: Comparison) -> str:
    """What stands behind a gain."""
    best = f"; the best simple predictor, {one.floor[0].lower()}, {number(one.floor[1].value, one.metric)}" if (
        one.floor) else ""
    return (f"{one.metric.label} {number(one.start.value, one.metric)}, scratch "
            f"{number(one.scratch.value, one.metric)}{best}")


def _control(findings: Sequence[Finding]) -> Iterator[str]:
    words = {"holds": "helps too, so that part of any gain is not due to what the other starts were taught",
             "does not hold": "does not help, as it should be",
             "cannot be told": "cannot be told from scratch, for better or worse"}
    for one in findings:
        if one.claim.name == "control" and one.gain.value is not None:
            where = "simulated brains" if one.simulated else "real scans"
            yield f"On {where} the control, a start trained on shuffled labels, {words[one.verdict]}."


def _claims(findings: Sequence[Finding]) -> Iterator[str]:
    for simulated in sorted({one.simulated for one in findings}):
        counts = Counter(one.verdict for one in findings if one.simulated == simulated and not one.claim.ours)
        where = "on simulated brains" if simulated else "on real scans"
        yield (f"Of the {sum(counts.values())} claims of the paper’s abstract, {where}: {counts['holds']} can be seen "
               f"to hold, {counts['does not hold']} not to hold, and {counts['cannot be told']} cannot be told from "
               "this benchmark.")


def _meaning(study: Study) -> Iterator[str]:
    if any(task.simulated for task in study.tasks):
        yield ("Simulated brains show how the methods behave where the truth is known. They say nothing about any "
               "patient, and a gain on them is no promise of a gain on real scans.")


def warnings(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    """What limits the conclusions."""
    benchmark, said = study.benchmark, []
    if benchmark.failed or benchmark.missing:
        said.append(f"{plural(len(benchmark.failed), 'cell')} failed and {len(benchmark.missing)} are not done, of "
                    f"{len(benchmark.plan.cells)}. {MISSING}")
    if len(benchmark.plan.seeds) < FEWEST_SEEDS:
        said.append(f"Fewer than {FEWEST_SEEDS} seeds: no difference is called one.")
    if len(benchmark.plan.seeds) == FEWEST_SEEDS:
        said.append("Three seeds tell how much seeds differ only roughly: a single p far below 0.05, which the "
                    "adjustment over many comparisons asks for, may be up to twice too small. Five seeds tell more.")
    few = sorted({(one.key.task, one.partition, one.gain.absolute.n) for one in comparisons
                  if one.gain.absolute.n < SMALL})
    said += [f"{task_title(task)} {partition}: only {n} people were tested; small differences cannot be told."
             for task, partition, n in few]
    seen = dict.fromkeys((one.key.upstream, words) for one in comparisons for words in one.overlaps)
    if seen:
        said.append("† marks a start that has, or may have, been trained on the people it is tested on here. Its gain "
                    f"may be memory. {'; '.join(f'{upstream}: {words}' for upstream, words in seen)}.")
    return [*said, *benchmark.plan.notes]


def methods(study: Study) -> list[str]:
    """How the numbers were made, as paragraphs for a paper."""
    plan, training = study.benchmark.plan, study.benchmark.plan.training
    learned = {"probe": "a linear read-out of frozen features, its penalty chosen on validation people",
               "knn": "nearest neighbours among frozen features, their number chosen on validation people"}.get(
        plan.mode, f"at most {training.epochs} epochs, ended by validation loss (patience {training.patience}), the "
        f"learning rate chosen on validation people among {', '.join(f'{rate:g}' for rate in training.learning_rates)}")
    return [
        f"Networks on a {plan.volume} grid learned {listed([task_words(task.name) for task in study.tasks])} from "
        f"T1-weighted scans ({cohorts(study).lower()}). Training: {learned}. Scratch was treated as every other start. "
        f"One in {plan.test_parts} people of the training sites was kept as the inside test; whole sites were kept as "
        "the outside test. These people are the same for every row, training size and seed; a seed draws the training "
        "people, the initial weights and the order of batches. Smaller training sets are parts of larger ones.",
        *([] if plan.mode in ("probe", "knn") else [ASKED_FIRST]),
        "A score is the mean over seeds, its 95 % interval a bias-corrected and accelerated bootstrap over people "
        f"(Efron 1987; {REPLICATES:,} replicates; Hesterberg 2015), widened for the variance over seeds. A gain is the "
        "difference to scratch on the same people and the same seeds; its variance is that over people (bootstrap) "
        "plus that over seeds (Owen 2007), each met with Student’s t of its own degrees of freedom (Cochran and Cox "
        "1950), so that an interval of a gain without zero and p below 0.05 are the same. Points are hundredths of the "
        "AUROC. A relative gain is in per cent of scratch’s score, whose own uncertainty widens its interval. The "
        "abstract of the paper does not say which of the two it means.",
        "Gains at the largest training size of every task are one family of tests, those at each smaller size another; "
        "p is adjusted within the family after Holm (1979). A difference is called one below 0.05 and from three "
        "seeds on. DeLong’s test (1988; Sun and Xu 2014) on AUROCs of scores averaged over seeds is shown and does not "
        "decide: it takes the seeds for granted.",
        "A claim of the paper is held against the mean gain over all starts and backbones that it may be about, so "
        "that nothing is picked out after the fact. It holds where that gain is above zero after adjustment over the "
        "claims; it does not hold where the gain is below zero, where the interval lies below the paper’s figure "
        f"however that is read, or where, without a figure, the interval lies below {MEANINGFUL_PERCENT:g} %; "
        "otherwise it cannot be told. Means over tasks are of relative gains; tasks that share people have their "
        "standard errors added.",
        "Scans saved: scratch’s scores by training size, made monotone, are interpolated in the logarithm of the size "
        "at the score that the start reached, on the data and on every replicate. Beyond the ends of scratch’s curve "
        "only the end is given. The loss at other sites compares other people, and so holds what differs between them.",
        *_pooling(study),
        "Floors were trained on the same people as the networks, since a network may score well on outline, site or "
        "age alone (Wen et al. 2020). Brain age is shown uncorrected first; the bias correction (de Lange and Cole "
        "2020) is fitted on other people than those it is applied to, and flatters every model.",
    ]


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nothing"


def _pooling(study: Study) -> Iterator[str]:
    """Where tasks leave out different sites of one cohort."""
    if pools(study):
        yield ("Tasks that leave out different sites of one cohort are also pooled: their outside tests have no person "
               "in common, and each person is predicted by the model that never saw the person’s site. Pooled scores "
               "are the mean absolute error, the correlation after truth and prediction lost the means of their site, "
               "and the share of pairs within a site that are ordered rightly (sites count by their pairs). Their "
               "intervals take the training sets as they are. Comparisons with scratch are one family, those with "
               "floors another.")
