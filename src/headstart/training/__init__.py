"""Training: ``fit`` a model under a plan, ``predict`` with it."""

from headstart.training.batches import Batch, Examples
from headstart.training.loop import encode, fit, predict
from headstart.training.objectives import Classification, Objective, Regression, Terms
from headstart.training.plan import Epoch, History, Mode, TrainingPlan
from headstart.training.signals import Preempted

__all__ = ["Batch", "Classification", "Epoch", "Examples", "History", "Mode", "Objective", "Preempted", "Regression",
           "Terms", "TrainingPlan", "encode", "fit", "predict"]
