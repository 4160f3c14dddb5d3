"""Experiments: what is asked (``Request``), what determines the result (``Experiment``), carrying it out (``run``)."""

from headstart.experiment.check import check
from headstart.experiment.run import run, write_report
from headstart.experiment.value import Experiment, Request

__all__ = ["Experiment", "Request", "check", "run", "write_report"]
