"""The model card: what a model is for, what it saw, how well it did, in Markdown beside its weights."""

from __future__ import annotations

from headstart.evaluation.results import Result
from headstart.modelfolder import ModelConfig

_CARD = """---
library_name: headstart
license: {tag}
tags: [brain-mri, T1w, {task}]
---
# {task}, {backbone}, from {upstream}

Predicts **{column}**{unit} from one T1-weighted scan of a brain. Research use only: **not a medical device**, not for
decisions on patients.

- Input: any T1w NIfTI. `headstart` runs the preprocessing `{contract}` of `config.json`; no other fits.
- Start: {start}.
- Trained on: {seen} ({n} scans of {subjects} people){simulated}.
- Licence: {licence}.
- Made with headstart {version}; the weights are those of the first seed's refit on all training sites.

## How well it did on people it had not seen
{scores}

{calibration}

Inside: out-of-fold predictions at the training sites. Outside: sites never trained on. Intervals: 95 %, bootstrap over
people. Expect worse than *inside* at a new site.

## By site, sex and age
{groups}

## Citation
headstart (`CITATION.cff` in its repository), and the study that it is built on: N. J. Dhinagar et al., "Video and
Synthetic MRI Pre-training of 3D Vision Architectures for Neuroimage Analysis", SPIE Medical Imaging 2024,
doi 10.1117/12.3008837.
"""


def model_card(config: ModelConfig, result: Result, n_scans: int, n_subjects: int) -> str:
    """Markdown of the card."""
    task = result.task
    return _CARD.format(
        task=task.name, backbone=config.backbone, upstream=config.upstream, column=task.column,
        unit=f" ({task.unit})" if task.unit else "", contract=config.contract.digest,
        start=_start(config), seen=_seen(config), n=n_scans, subjects=n_subjects,
        simulated=". **Simulated brains**, not patients" if config.simulated else "",
        tag=_tag(config.licence), licence=config.licence or f"that of {config.upstream}, which headstart does not know",
        version=config.made_with.get("headstart", "?"), scores=_scores(config),
        calibration=_calibration(config), groups=_groups(result))


def _tag(licence: str | None) -> str:
    """The licence as the Hugging Face hub names it."""
    return "apache-2.0" if licence == "Apache-2.0" else "other"


def _start(config: ModelConfig) -> str:
    if config.upstream == "scratch":
        return "scratch, weights drawn at random"
    return f"{config.upstream}; it learnt from {config.domain or 'what its publisher does not say'}"


def _seen(config: ModelConfig) -> str:
    if config.seen is None:
        return "scans that the upstream's publisher does not name, then this cohort"
    return ", ".join(config.seen)


def _scores(config: ModelConfig) -> str:
    rows = ["| partition | metric | value | 95 % interval | people |", "| --- | --- | --- | --- | --- |"]
    for partition, metrics in config.scores.items():
        rows += [f"| {partition} | {name} | {_text(e['value'])} | {_text(e['low'])} to {_text(e['high'])} | {e['n']} |"
                 for name, e in metrics.items()]
    return "\n".join(rows)


def _groups(result: Result) -> str:
    """The main metric in every group of people that is large enough for a score."""
    rows = ["| partition | group | metric | value | 95 % interval | people |", "| --- | --- | --- | --- | --- | --- |"]
    for partitions in (result.by_site, result.by_sex, result.by_age):
        for partition, groups in partitions.items():
            for group, scores in groups.items():
                metric, found = next(iter(scores.items()))
                rows.append(f"| {partition} | {group.replace('|', '/')} | {metric} | {_text(found.value)} | "
                            f"{_text(found.low)} to {_text(found.high)} | {found.n} |")
    return "\n".join(rows) if len(rows) > 2 else "No group is large enough for a score of its own."


def _calibration(config: ModelConfig) -> str:
    if config.calibration is None or config.task is None:
        return "Predictions come without intervals."
    return " ".join(config.calibration.sentences(config.task.unit)) or "Predictions come without intervals."


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
