"""The card of a start: what it saw, what it learnt, what that cost, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from headstart.pretraining.config import PROCEDURAL

SAW = {
    "synthetic-mri": "simulated brains; no real scan was seen",
    "procedural-video": "procedural clips: rendered, no camera, no person; time runs along X, from left to right",
    "procedural-images": "procedural pictures: rendered, no photograph, no person; depth runs along X, Y or Z",
    "real-mri": "real scans",
    "video": "real clips; time runs along X, from left to right",
    "natural-images": "real pictures, stacked into pseudo-volumes",
}
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 50  # characters of the curve

_CARD = """# {backbone}, pre-trained on {source}, {objective}

A start for `headstart finetune --upstream`, not a finished model. It saw {saw}.{control}

## What it cost

| | |
| --- | --- |
| samples | {samples:,} in {epochs} epochs over a pool, {steps:,} steps |
| time in steps | {hours:.2f} h: {samples_per_second:.0f} samples/s; the network is busy {busy:.0%} of the time |
| peak memory | {memory} |
| machine | {machine} |

## What it learnt

{learnt}

Training loss, first step to last, {first:.3f} to {last:.3f}:

`{curve}`

## How to make it again

`headstart pretrain --config FILE --out DIR`, with this in the file:

```yaml
{config}```
"""


def card(record: Mapping[str, Any], *, simulated: bool) -> str:
    """The model card in Markdown, from what stands in ``pretraining.json``."""
    config, cost, losses = record["config"], record["cost"], record["curve"]["loss"]
    source = named(config, simulated=simulated)
    control = (" **Control: its labels were shuffled**, so it shows what the images and the training alone give."
               if config["shuffle_labels"] else "")
    memory = ", ".join(f"{gib:.2f} GiB ({what})" for what, gib in cost["peak_memory_gib"].items())
    machine = record["made_with"]
    return _CARD.format(
        backbone=config["backbone"], objective=config["objective"], source=source, saw=SAW[source], control=control,
        memory=memory, learnt=(_scores(record["held_out"]) + _probe(record["looks"])).strip(),
        machine=f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['devices'])}",
        first=losses[0], last=losses[-1], curve=sparkline(losses),
        config=yaml.safe_dump({name: value for name, value in config.items() if value is not None}, sort_keys=False),
        **{name: cost[name] for name in ("samples", "epochs", "steps", "hours", "samples_per_second", "busy")})


def _scores(held_out: Mapping[str, Any]) -> str:
    """Of a supervised start: its own labels on samples it was not trained on."""
    if not held_out["scores"]:
        return ""
    rows = "\n".join(f"| {name} | {'–' if score is None else format(score, '.2f')} |"
                     for name, score in held_out["scores"].items())
    return (f"Held-out samples of the same kind ({held_out['samples']}); correlation with the truth, or share of "
            f"correct classes:\n\n| label | score |\n| --- | --- |\n{rows}\n\n")


def _probe(looks: list[Mapping[str, Any]]) -> str:
    """What a linear probe read from the features, before the first step and after the last."""
    if not looks:
        return ""
    first, last = looks[0], looks[-1]
    rows = "\n".join(f"| {name} | {first['probe'][name]:.2f} | {score:.2f} |" for name, score in last["probe"].items())
    return ("Linear probe on simulated brains of other people and scanners; correlation, for sex the share of correct "
            f"answers:\n\n| label | untrained | trained |\n| --- | --- | --- |\n{rows}\n"
            f"| effective rank | {first['rank']:.1f} | {last['rank']:.1f} |\n\n")


def domain(config: Mapping[str, Any], *, simulated: bool) -> str:
    """What a model's config says its start learnt from: ``named``, or ``control`` where the labels were shuffled."""
    return "control" if config["shuffle_labels"] else named(config, simulated=simulated)


def named(config: Mapping[str, Any], *, simulated: bool) -> str:
    """What was learnt from, by what was really seen: simulated and rendered samples never pass for real ones."""
    if simulated:
        return {**PROCEDURAL, "real-mri": "synthetic-mri"}.get(config["source"], config["source"])
    return "real-mri" if config["source"] == "synthetic-mri" else config["source"]


def sparkline(values: list[float]) -> str:
    """A curve as one line of text, the highest value at full height."""
    kept = [values[i * (len(values) - 1) // max(min(WIDTH, len(values)) - 1, 1)]
            for i in range(min(WIDTH, len(values)))]
    low, high = min(kept), max(kept)
    return "".join(BLOCKS[round((value - low) / max(high - low, 1e-12) * (len(BLOCKS) - 1))] for value in kept)
