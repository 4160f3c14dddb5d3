"""What a result was made with: versions, commit, machine. It goes into every result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "monai", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "SimpleITK", "deepbet",
            "lightning-fabric")


def environment() -> dict[str, Any]:
    """Versions, git commit (of a source checkout), processor, memory and devices, JSON-able."""
    import psutil
    import torch

    return {
        "headstart": metadata.version("headstart"),
        "commit": _commit(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
    }


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"],
                           capture_output=True, text=True, check=False) if _has_git() else None
    return (asked.stdout.strip() or None) if asked else None


def _has_git() -> bool:
    from shutil import which

    return which("git") is not None and any((p / ".git").exists() for p in Path(__file__).resolve().parents)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
