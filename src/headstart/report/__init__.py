"""Reports: one self-contained HTML file that opens from disk, offline."""

from headstart.report.html import render

__all__ = ["render"]
