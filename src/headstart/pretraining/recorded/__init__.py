"""Clips and pictures from files, read once into a store."""

from headstart.pretraining.recorded.pool import write_pool

__all__ = ["write_pool"]
