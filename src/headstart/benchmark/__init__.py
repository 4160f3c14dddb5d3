"""The benchmark: upstream × backbone × task × training size × seed, inside and outside the training sites."""

from headstart.benchmark.plan import Cell, Plan, read_plan
from headstart.benchmark.results import Benchmark, CellRecord, CellResult, read

__all__ = ["Benchmark", "Cell", "CellRecord", "CellResult", "Plan", "read", "read_plan"]
