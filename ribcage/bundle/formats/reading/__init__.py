"""Reading of published weights: containers, unpicklers, and what a file turns out to be."""
