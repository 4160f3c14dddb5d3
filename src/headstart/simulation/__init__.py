"""Simulated T1w brains whose labels are true of the image. See ``base.py`` for the interface."""
