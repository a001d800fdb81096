"""Readers: tables and folders of any form → the columns, boxes, masks and reports of the Index.

Imports what `data` may import. `datasets` uses all of them; other packages read their tables with `tables` and
`columns`.
"""
