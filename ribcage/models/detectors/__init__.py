"""Detectors: what finds boxes in a backbone's maps – heads, their targets and their losses."""
