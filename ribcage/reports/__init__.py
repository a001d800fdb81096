"""Reports: HTML and SVG, and one page for each kind of result.

Imports runtime to training.
Commands use the page of their result: `classification`, `detection`, `audit`, `pretraining`, `demo`.
"""
