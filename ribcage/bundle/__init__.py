"""Bundle: a finished model in a folder – written, opened, converted from published files, exported, described.

Imports runtime to methods.
Others use `bundle.load`, `bundle.save`, `card`, `history`, `ood`, `formats` and `deployment`.
"""
