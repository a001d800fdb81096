"""Evaluation: predictions and labels → metrics with intervals; validation, comparison of models, and the leakage
check."""
