"""Bundle: a finished model in a folder – its spec, its weights, its card, its tests, and its way to other runtimes.

Imports runtime to methods.
Others use `ModelSpec`, `save_bundle`, `load_bundle`, `initial_backbone`, `card`, `history`, `ood`, `deployment`.
"""
