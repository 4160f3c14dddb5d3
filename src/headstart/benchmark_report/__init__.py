"""The report of a benchmark: every start against scratch, the paper's claims one by one, in one HTML file."""

from headstart.benchmark_report.page import write

__all__ = ["write"]
