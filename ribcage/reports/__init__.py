"""Reports: one HTML page for each kind of result from templates, plots as SVG, tables for the terminal.

Imports runtime to training.
Commands use the page of their result: `classification`, `detection`, `comparison`, `audit`, `pretraining`, `demo`.
"""
