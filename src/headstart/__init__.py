"""Transfer learning for 3D brain MRI: give your model a head start, and prove that it helped."""

from __future__ import annotations

from typing import Any

__all__ = ["BrainAgeRegressor", "BrainClassifier", "create_model", "load"]


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is first asked for: ``import headstart`` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    from headstart import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
