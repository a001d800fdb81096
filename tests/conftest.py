"""Tests compute on one thread, as the processes that they start: with another number of threads the last bits differ."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
