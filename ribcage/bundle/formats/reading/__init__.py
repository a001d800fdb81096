"""Reading of published weights: file formats, restricted unpicklers, and the description of what a file contains."""
