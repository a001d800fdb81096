"""Bundle: a finished model in a folder, with its spec, weights, card and history of tests, and its export to other
runtimes."""
