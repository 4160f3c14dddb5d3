"""What a model knows of its own errors: conformal intervals, calibrated probabilities, unfamiliar scans"""
