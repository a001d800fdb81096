"""Shared code for writing published layouts."""
