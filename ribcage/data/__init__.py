"""Data: the index, dataset folders and their import, the loader, splits and selections.

Imports runtime, imaging and metrics. Other packages use `Index`, `dataset_folder.open`, `Loader`, `selection` and
`datasets`.
"""
