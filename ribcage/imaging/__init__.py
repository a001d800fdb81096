"""Imaging: one file → a gray image and what was done to it; augmentation, fingerprints, heat-maps.

Imports runtime.
Others use `image_file.read_image`, `View` and the functions of `augment`, `fingerprint` and `heatmaps`.
"""
