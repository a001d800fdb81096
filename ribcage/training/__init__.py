"""Training: the only loop, the run in its folder, and what a run is made of.

Imports runtime to evaluation.
Commands use `TrainingOptions`, `setup`, `Run`, `run_folder` and `teachers`; reports use `monitor` and `probe`.
"""
