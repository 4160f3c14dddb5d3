"""The source tree keeps its promises: imports point one way, files stay readable, help is instant."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "headstart"
FOUNDATION = {"download", "errors", "files", "names", "processes"}
# Each part may import the foundation and what stands here; nothing else of headstart.
MAY_IMPORT = {
    "download": set(),
    "errors": set(),
    "files": set(),
    "names": set(),
    "processes": set(),
    "arguments": set(),
    "environment": set(),
    "brains": set(),
    "simulation": {"brains"},
    "adaptation": set(),
    "backbones": {"brains"},
    "evaluation": {"brains"},
    "tasks": {"brains"},
    "training": {"brains", "backbones"},
    "upstreams": {"brains", "adaptation", "backbones"},
    "modelfolder": {"brains", "backbones", "calibration", "tasks"},
    "weights_commands": {"upstreams", "adaptation", "backbones", "brains", "environment", "modelfolder", "prediction"},
    "data_commands": {"brains", "datasets"},
    "datasets": {"brains"},
    "execution": set(),
    "report": {"brains", "evaluation", "simulation"},
    "pretraining": {"brains", "simulation", "backbones", "training", "upstreams", "modelfolder", "environment",
                    "evaluation", "execution", "report"},
    "experiment": {"brains", "calibration", "backbones", "tasks", "training", "upstreams", "modelfolder", "evaluation",
                   "execution", "report", "environment"},
    "benchmark": {"brains", "simulation", "backbones", "tasks", "training", "upstreams", "evaluation", "experiment",
                  "environment", "explanation"},
    "benchmark_report": {"benchmark", "brains", "environment", "evaluation", "report", "upstreams"},
    "benchmark_commands": {"benchmark", "benchmark_report", "brains", "evaluation"},
    "calibration": set(),
    "estimators": {"brains", "backbones", "calibration", "experiment", "training", "upstreams"},
    "api": {"brains", "backbones", "explanation", "prediction", "estimators", "upstreams"},
    "explanation": {"brains", "backbones"},
    "prediction": {"brains", "backbones", "calibration", "explanation", "tasks", "training", "modelfolder",
                   "environment", "upstreams", "report"},
    "export": {"backbones", "brains", "modelfolder"},
    "prediction_commands": {"prediction", "export"},
    "__main__": {"cli"},
    "cli": {"brains", "simulation", "tasks", "experiment", "prediction", "pretraining", "upstreams", "evaluation",
            "report", "modelfolder", "weights_commands", "prediction_commands", "data_commands", "datasets",
            "benchmark", "benchmark_report", "benchmark_commands", "arguments"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "headstart":
            dotted = node.module.split(".")
            names |= {dotted[1]} if len(dotted) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("headstart.")}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    assert part in MAY_IMPORT, f"{part} is a new part: say in MAY_IMPORT what it may import"
    wrong = imported_parts(path) - MAY_IMPORT[part] - FOUNDATION - {part}
    assert not wrong, f"{path.name} may not import {sorted(wrong)}"


def test_evaluation_never_imports_torch() -> None:
    code = "import sys, headstart.evaluation.results, headstart.evaluation.floors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 350, f"{path.name} has {lines} lines: is there a seam?"


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "nibabel", "nilearn", "monai", "SimpleITK", "sklearn", "scipy", "pydantic"}
    code = ("import sys, headstart.cli\ntry:\n headstart.cli.app(['--help'])\nexcept SystemExit:\n pass\n"
            f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_readme_has_a_line_for_every_file() -> None:
    done = subprocess.run([sys.executable, str(SOURCE.parents[1] / "scripts" / "source-tree"), "--check"], check=False)
    assert done.returncode == 0, "run scripts/source-tree"
