"""Files made by the program: `make generate` writes them, `make check` says which are stale."""

import os
from pathlib import Path

WRITING = any(name.startswith("RIBCAGE_WRITE") for name in os.environ)
"""Whether they are written anew."""


def stale(file: Path, wanted: str) -> str:
    """Why a generated file is not what the program makes; "" when it is, or has just been written."""
    if WRITING:
        file.write_text(wanted, encoding="utf-8")
    there = file.read_text(encoding="utf-8") if file.is_file() else ""
    return "" if there == wanted else f"{file.name} is stale: run make generate"
