"""Detectors: heads that detect boxes on the feature maps of a backbone, with their targets and losses."""
