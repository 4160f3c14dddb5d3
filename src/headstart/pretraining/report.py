"""The report of a pre-training, finished or under way: one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.errors import HeadstartError
from headstart.files import atomic_write, read_json
from headstart.modelfolder import CONFIG
from headstart.pretraining.card import SAW, named
from headstart.pretraining.curve import Curve
from headstart.pretraining.run import RECORD, REQUEST, TRAINING
from headstart.report.html import flat
from headstart.report.page import assets, csv_text, data_uri, template_environment
from headstart.report.svg import Scale, drawing, element, polyline, x_axis, y_axis

TEMPLATES = Path(__file__).parent / "templates"
REPORT = "report.html"
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 960, 340, 70, 760, 290
FEWEST_DIRECTIONS = 2.0  # effective rank below which features have collapsed


def is_pretraining(out: Path) -> bool:
    """Whether a folder is one that ``headstart pretrain`` has begun."""
    return (out / REQUEST).is_file() and ((out / RECORD).is_file() or (out / TRAINING).is_dir())


def write_report(out: Path) -> Path:
    """Write ``report.html`` of a pre-training from its files.

    Raises:
        HeadstartError: there is no pre-training, or not one step of it is done.
    """
    state = read_state(out)
    page = template_environment(TEMPLATES).get_template("pretraining.html.j2").render(
        state=state, flat=flat, title=title(state), summary=summary(state), figures=figures(state), spoken=spoken,
        downloads=downloads(state), **assets())
    with atomic_write(out / REPORT) as file:
        file.write(page)
    return out / REPORT


def read_state(out: Path) -> dict[str, Any]:
    """``pretraining.json``; of a run that is under way what it has noted so far, with ``cost`` None."""
    if not is_pretraining(out):
        raise HeadstartError("holds no pre-training", path=out, fix="Run pretrain into it first.")
    if (out / RECORD).is_file():
        return {**read_json(out / RECORD), "model": read_json(out / CONFIG) if (out / CONFIG).is_file() else {}}
    curve, looks = Curve(out / TRAINING / "curve.jsonl"), Curve(out / TRAINING / "looks.jsonl")
    if not curve.read():
        raise HeadstartError("has not done a step yet", path=out, fix="Wait for the first steps.")
    steps, losses = curve.averaged()
    return {"config": read_json(out / REQUEST), "held_out": {"samples": 0, "scores": {}}, "cost": None,
            "curve": {"step": steps, "loss": losses}, "looks": list(looks.read().values()), "made_with": {},
            "model": {}}


def title(state: Mapping[str, Any]) -> str:
    config = state["config"]
    return f"{config['backbone']} learns from {source_of(state)}"


def source_of(state: Mapping[str, Any]) -> str:
    """The source by what was really seen; while a run on given data is under way, by what was asked for."""
    config, model = state["config"], state["model"]
    if not model and config["data"] is not None:
        return config["source"]
    return named(config, simulated=model.get("simulated", True))


def summary(state: Mapping[str, Any]) -> list[str]:
    """What came out, in plain words."""
    config, losses, looks = state["config"], state["curve"]["loss"], state["looks"]
    words = [f"Objective: {config['objective']}. It saw {SAW[source_of(state)]}. The training loss went from "
             f"{losses[0]:.3f} to {losses[-1]:.3f}."]
    if config["shuffle_labels"]:
        words.append("This is a control: every label was given to another sample.")
    if state["cost"] is None:
        words.append("It is still under way, or was stopped; the same command goes on.")
    if len(looks) > 1:
        words += [_probe_words(looks[0], looks[-1]), _spread_words(looks[-1])]
    return words


def _probe_words(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    said = ", ".join(f"{spoken(name)} {score:.2f} ({first['probe'][name]:.2f} before training)"
                     for name, score in last["probe"].items())
    return ("A linear probe on its features, read on simulated brains of people and scanners that no upstream has "
            f"seen: {said}. Numbers are correlations; for sex, the share of correct answers.")


def _spread_words(last: Mapping[str, Any]) -> str:
    if last["rank"] < FEWEST_DIRECTIONS:
        return (f"The features have collapsed: they use {last['rank']:.1f} directions. Lower the learning rate, or "
                "choose another objective.")
    return f"The features have not collapsed: they use about {last['rank']:.0f} directions."


def figures(state: Mapping[str, Any]) -> dict[str, Markup]:
    """The curves of the page, by name; those of looks only where there are some."""
    steps, looks = state["curve"]["step"], state["looks"]
    drawn = {"loss": curves({"training loss": list(zip(steps, state["curve"]["loss"], strict=True))}, "loss")}
    if len(looks) > 1:
        at = [look["step"] for look in looks]
        drawn["probe"] = curves({spoken(name): list(zip(at, (look["probe"][name] for look in looks), strict=True))
                                 for name in looks[0]["probe"]}, "score of the probe")
        drawn["rank"] = curves({"effective rank": [(look["step"], look["rank"]) for look in looks]}, "directions")
        drawn["deviation"] = curves({"deviation": [(look["step"], look["deviation"]) for look in looks]}, "deviation")
    return drawn


def spoken(label: str) -> str:
    """A label as people say it."""
    return label.removeprefix("log_").replace("_", " ")


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> Markup:
    """Lines over steps, each with its name at its end, so that colour is not needed to tell them apart."""
    across = Scale(0, max(max(step for step, _ in line) for line in lines.values()), LEFT, RIGHT)
    up = Scale.around([value for line in lines.values() for _, value in line], BOTTOM, 12)
    drawn = [polyline(((across(step), up(value)) for step, value in line), "curve inside") for line in lines.values()]
    ends = _apart([up(line[-1][1]) for line in lines.values()])
    names = [element("text", f"{name} {line[-1][1]:.2f}", x=RIGHT + 10, y=y + 4, class_="label")
             for (name, line), y in zip(lines.items(), ends, strict=True)]
    return drawing(WIDTH, HEIGHT, f"{unit} by step", x_axis(across, 12, BOTTOM, "step"),
                   y_axis(up, LEFT, RIGHT, unit), *drawn, *names)


def _apart(places: Sequence[float], gap: float = 18.0) -> list[float]:
    """The places, moved down where they are closer than ``gap``; the lowest stay within the figure."""
    moved: dict[int, float] = {}
    for index in sorted(range(len(places)), key=lambda index: places[index]):
        moved[index] = max([places[index], *(place + gap for place in moved.values())])
    over = max([0.0, *(place - BOTTOM for place in moved.values())])
    return [moved[index] - over for index in range(len(places))]


def downloads(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(file name, data URI): what the page shows, for machines."""
    rows = zip(state["curve"]["step"], state["curve"]["loss"], strict=True)
    looks = [[look["step"], *look["probe"].values(), look["rank"], look["deviation"]] for look in state["looks"]]
    names = ["step", *(state["looks"][0]["probe"] if state["looks"] else []), "rank", "deviation"]
    texts = {"curve.csv": csv_text(["step", "loss"], rows), "looks.csv": csv_text(names, looks),
             "pretraining.json": json.dumps(state, ensure_ascii=False, indent=1)}
    return [(name, data_uri(name, text)) for name, text in texts.items()]
