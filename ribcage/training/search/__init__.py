"""Hyperparameter search: search space, trials shared by several processes, and the table and recipe of the result."""
