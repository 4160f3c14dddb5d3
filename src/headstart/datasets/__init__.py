"""Openly licensed data sets: where they are, how they come here whole, and how they become BIDS."""

from headstart.datasets.catalogue import DATASETS, find
from headstart.datasets.fetch import fetch

__all__ = ["DATASETS", "fetch", "find"]
