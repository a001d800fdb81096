"""Importer: writes a dataset folder from an index and its image files.

`chunks` reads the images, `mask_files` reads their masks, and `box_check` checks their boxes; `writer` writes them with
a journal from which an interrupted import resumes, and `pixel_files` holds the files of the pixels; `tables` makes the
tables of the folder from what was recorded about each image; `parts` divides an import among machines and merges it;
`resharding` copies a folder and divides its images among other files.
"""
