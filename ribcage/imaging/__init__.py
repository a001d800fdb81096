"""Imaging: reading an image file as a gray image; augmentation, fingerprints, heat-maps.

Imports runtime. Other packages use `image_file.read_image`, `View` and the functions of `augment`, `fingerprint` and
`heatmaps`.
"""
