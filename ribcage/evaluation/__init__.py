"""Evaluation: predictions and labels → judged numbers; validation, comparison, and the leakage check.

Imports runtime to inference.
Others use `evaluate_classifier`, `evaluate_detector`, `Validation`, `leakage.check_leakage` and `comparison`.
"""
