"""Clips and pictures made by a program: no camera, no photograph, no person."""

from headstart.pretraining.procedural.pool import KINDS, write_pool

__all__ = ["KINDS", "write_pool"]
