"""Readers: tables in anybody's spelling → columns in ours.

Imports what `data` may import.
The datasets use `tables`, `columns` and `box_list`.
"""
