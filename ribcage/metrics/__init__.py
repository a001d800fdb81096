"""Metrics: arrays in, numbers out.

Everywhere scores are (N, F), labels are (N, F) with 1, 0 and NaN for unknown, weights (N,) and patients (N,) codes.
What a missing class leaves undefined is NaN, never 0 or 0.5, and a mean over findings says how many it used."""
