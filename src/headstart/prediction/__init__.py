"""Finished models on new scans: the model's preprocessing is run, verified and said, or there is no answer"""

from headstart.prediction.finished import FinishedModel, open_model
from headstart.prediction.group import write_group
from headstart.prediction.participants import Summary, predict_participants
from headstart.prediction.predictor import Prediction, predict_prepared, predict_scan

__all__ = ["FinishedModel", "Prediction", "Summary", "open_model", "predict_participants", "predict_prepared",
           "predict_scan", "write_group"]
