"""The verbs: `ribcage x` runs `commands/x.py`."""
