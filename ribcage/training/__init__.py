"""Training: the training loop, runs in their folders, and what a run is set up from."""
