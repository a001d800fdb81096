"""Evaluation: predictions and labels → judged numbers; validation, comparison, and the leakage check.

Imports runtime to inference.
Others use `classification.evaluate`, `detection.evaluate`, `Validation`, `leakage.check` and `comparison`.
"""
