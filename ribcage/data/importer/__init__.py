"""Importer: writes a dataset folder from an index and its image files.

`writer` writes the pixels, with a journal from which an interrupted import resumes; `tables` makes the tables of the
folder from what was recorded about each image; `parts` divides an import among machines and merges it.
"""
