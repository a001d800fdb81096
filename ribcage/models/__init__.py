"""Models: backbones without their heads, detection heads, and losses.

Imports runtime and data. Other packages use `Backbone`, `layers`, `losses` and the detectors.
"""
