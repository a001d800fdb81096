"""Models: a backbone without its head, what stands on it, and losses.

Imports runtime and data.
Others use `Backbone`, `layers`, `losses` and the detectors.
"""
