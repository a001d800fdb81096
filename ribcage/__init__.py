"""Ribcage: one tool for the whole life of a chest-radiograph model."""

__version__ = "0.1.0"
