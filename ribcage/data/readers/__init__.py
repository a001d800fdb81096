"""Readers: tables with arbitrary column names → columns of the Index.

Imports what `data` may import. The datasets use `tables`, `columns` and `box_list`.
"""
