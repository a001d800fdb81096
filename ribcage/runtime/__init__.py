"""Runtime: what every program needs and nothing that knows of images – files, progress, ranks, randomness, words.

Imports nothing of the package.
Others use whole modules: `from ribcage.runtime import files, progress`.
"""
