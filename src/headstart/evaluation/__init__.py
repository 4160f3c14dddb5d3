"""Metrics, intervals, paired tests, floors, and the schema of a result; never imports torch."""
