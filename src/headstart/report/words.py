"""A result in plain words, for a reader who has never heard of a fold."""

from __future__ import annotations

from headstart.evaluation.metrics import METRICS, PRIMARY
from headstart.evaluation.results import FEWEST_SEEDS, Comparison, Result
from headstart.evaluation.statistics import Estimate
from headstart.evaluation.summary import interval, model_name, number, verdict

WHERE = {"inside": "from the sites it was trained on (but never seen in training)",
         "outside": "from sites it had never seen"}
TASKS = {"brain-age": "Brain age", "ad": "Alzheimer’s disease", "pd": "Parkinson’s disease", "sex": "Sex"}


def title(result: Result) -> str:
    """What was predicted, as a heading."""
    return TASKS.get(result.task.name, result.task.name)


def summary(result: Result) -> list[str]:
    """What was predicted, on whom, how well, against what, and whether it can be told, by partition."""
    parts = [partition for partition in ("inside", "outside") if getattr(result, partition)]
    return [f"{_what(result, partition)} {_against(result, partition)}" for partition in parts]


def _what(result: Result, partition: str) -> str:
    metric = METRICS[PRIMARY[result.task.kind]]
    estimate: Estimate = getattr(result, partition)[metric.name]
    people = f"{estimate.n} {'simulated people' if result.simulated else 'people'} {WHERE[partition]}"
    if estimate.value is None:
        return f"In {people}, {metric.label} cannot be computed: {estimate.reason}."
    between = interval(estimate, metric)
    sure = f" (95 % interval {between})" if between else ""
    if result.task.kind == "regression":
        return (f"In {people}, the predicted {result.task.column} was off by "
                f"{number(estimate.value, metric)} {result.task.unit}".rstrip() + f" on average{sure}.")
    return f"In {people}, {_told_apart(result)} with {metric.label} {number(estimate.value, metric)}{sure}."


def _told_apart(result: Result) -> str:
    classes = result.task.classes
    if len(classes) == 2:
        return f"{classes[1]} was told from {classes[0]}"
    return f"{', '.join(classes[:-1])} and {classes[-1]} were told apart"


def _against(result: Result, partition: str) -> str:
    """The comparison with the floors, hardest first."""
    found = [comparison for comparison in result.comparisons if comparison.partition == partition]
    if not found:
        return "There is nothing to compare it with."
    if found[0].seeds < FEWEST_SEEDS:
        return f"With fewer than {FEWEST_SEEDS} seeds it is not compared with the floors."
    named = {word: [c for c in found if verdict(c) == word] for word in ("better", "cannot be told", "worse")}
    clauses = [_beaten(result, named["better"], len(found))] if named["better"] else []
    if named["cannot be told"]:
        clauses.append(f"It cannot be told from {_listed([_floor(result, c) for c in named['cannot be told']])}")
    if named["worse"]:
        clauses.append(f"It is worse than {_listed([_floor(result, c) for c in named['worse']])}")
    return ". ".join(clauses) + "."


def _beaten(result: Result, beaten: list[Comparison], floors: int) -> str:
    """How many floors were beaten, and the hardest of them."""
    sign = 1 if METRICS[beaten[0].metric].better == "lower" else -1
    hardest = max(beaten, key=lambda comparison: sign * (comparison.difference.value or 0.0))
    if len(beaten) == floors:
        return f"It beats all {floors} floors; the hardest is {_floor(result, hardest)}"
    count = f"{len(beaten)} of {floors} floors"
    return f"It beats {count}{', the hardest being ' if len(beaten) > 1 else ': '}{_floor(result, hardest)}"


def _floor(result: Result, comparison: Comparison) -> str:
    metric = METRICS[comparison.metric]
    value = getattr(result.floors[comparison.floor], comparison.partition)[comparison.metric].value
    title = result.floors[comparison.floor].title
    return f"“{title[0].lower() + title[1:]}” ({number(value, metric)})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def methods(result: Result) -> list[str]:
    """How the numbers were made, as paragraphs for a paper."""
    model, replicates = model_name(result), result.bootstrap.get("replicates", 0)
    paragraphs = [
        f"{title(result)} was predicted from T1-weighted scans by {model}, trained with {len(result.seeds)} random "
        "seeds. Scans were split by subject: all scans of a person stand on one side. Inside the training sites every "
        "subject was predicted by models that had not seen it (cross-validation, repeated once a seed; "
        f"{_chosen(result)} chosen on validation scans only). Sites named “outside” took no part in training or "
        "choosing.",
        f"A score is the mean over seeds. Its 95 % interval is a bias-corrected and accelerated bootstrap (Efron 1987; "
        f"{replicates:,} replicates) that resamples subjects, with all their sessions and seeds, widened for small "
        "numbers (Hesterberg 2015). The number beside a score counts subjects. Out-of-fold predictions are pooled "
        "before scoring. The interval of a calibration error shows its spread; the error itself is biased upwards when "
        "n is small.",
        "Model and floors were compared on the same subjects and seeds, crossed: the difference’s variance is that "
        "over subjects (bootstrap) plus that over seeds (Owen 2007), each met with Student’s t of its own degrees of "
        "freedom (Cochran and Cox 1950), so that an interval without zero and p below 0.05 are the same. All p values "
        "of this page are one family, adjusted after Holm (1979); a "
        "difference is called one below 0.05 and from three seeds on. For an AUROC of two classes the test of DeLong "
        "et al. (1988; Sun and Xu 2014), clustered by subject (Obuchowski 1997), stands beside it. It compares "
        "probabilities averaged over seeds, which is another question: averaging helps models whose seeds disagree.",
        "Floors were trained on the same scans as the model. Linear floors are ridge regressions (of classes, on "
        "their indicators) whose penalty was chosen within the training scans. They are shown because a network may "
        "score well on outline, site or age alone (Wen et al. 2020).",
    ]
    descends = result.experiment.get("plan", {}).get("mode") not in ("probe", "knn")
    return [*paragraphs, *([ASKED_FIRST] if descends and result.experiment.get("upstream") != "scratch" else []),
            *([_bias(result)] if result.bias_corrected else [])]


def _chosen(result: Result) -> str:
    mode = result.experiment.get("plan", {}).get("mode")
    chosen = {"probe": "the penalty of the linear probe", "knn": "the number of neighbours"}
    return chosen.get(str(mode), "learning rate and stopping")


def _bias(result: Result) -> str:
    assert result.bias_corrected is not None
    return f"Bias correction of brain age: {result.bias_corrected.method}"


ASKED_FIRST = (
    "A start that had learnt to say what was asked (age, sex) began with what it said, on a ridge line with a prior of "
    "twenty scans fitted to the training scans; the weights that were kept lie halfway between this beginning and the "
    "end of training (Wortsman et al. 2022). Other heads began at random, and the end of training was kept.")


REFERENCES = (
    ("DeLong1988", "E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson", "Comparing the areas under two or more "
     "correlated receiver operating characteristic curves: a nonparametric approach", "Biometrics 44:837–845", "1988"),
    ("SunXu2014", "X. Sun, W. Xu", "Fast implementation of DeLong’s algorithm for comparing the areas under correlated "
     "receiver operating characteristic curves", "IEEE Signal Processing Letters 21:1389–1393", "2014"),
    ("Obuchowski1997", "N. A. Obuchowski", "Nonparametric analysis of clustered ROC curve data",
     "Biometrics 53:567–578", "1997"),
    ("Efron1987", "B. Efron", "Better bootstrap confidence intervals",
     "Journal of the American Statistical Association 82:171–185", "1987"),
    ("Hesterberg2015", "T. C. Hesterberg", "What teachers should know about the bootstrap",
     "The American Statistician 69:371–386", "2015"),
    ("Owen2007", "A. B. Owen", "The pigeonhole bootstrap", "Annals of Applied Statistics 1:386–411", "2007"),
    ("CochranCox1950", "W. G. Cochran, G. M. Cox", "Experimental designs", "Wiley, New York", "1950"),
    ("Holm1979", "S. Holm", "A simple sequentially rejective multiple test procedure",
     "Scandinavian Journal of Statistics 6:65–70", "1979"),
    ("Wen2020", "J. Wen et al.", "Convolutional neural networks for classification of Alzheimer’s disease: overview "
     "and reproducible evaluation", "Medical Image Analysis 63:101694", "2020"),
    ("deLange2020", "A.-M. G. de Lange, J. H. Cole", "Commentary: correction procedures in brain-age prediction",
     "NeuroImage: Clinical 26:102229", "2020"),
    ("Wortsman2022", "M. Wortsman et al.", "Robust fine-tuning of zero-shot models", "CVPR 2022 (arXiv 2109.01903)",
     "2022"),
    ("Dhinagar2023", "N. J. Dhinagar et al.", "Video and synthetic MRI pre-training of 3D vision architectures for "
     "neuroimage analysis", "arXiv 2309.04651", "2023"),
)


def bibtex() -> str:
    """The references as BibTeX."""
    return "\n".join(f"@article{{{key},\n  author = {{{who}}},\n  title = {{{what}}},\n  journal = {{{where}}},\n"
                     f"  year = {{{year}}}\n}}" for key, who, what, where, year in REFERENCES)
