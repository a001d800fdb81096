"""Stops of a command: which functions are called from another module of the package, and how many modules hold them.

    python benchmarks/stops.py predict runs/chexnet scan.dcm --maps maps

The last line counts them; `--list` before the command prints them in the order of their first call. To count an earlier
version, run this file with PYTHONPATH set to its tree.
"""

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import ribcage
from ribcage import cli

ROOT = Path(ribcage.__file__).parent


def main() -> None:
    """Run the command and count."""
    words = sys.argv[1:]
    listed = words[:1] == ["--list"]
    found: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if event != "call" or not file.startswith(str(ROOT)) or name.startswith("<"):
            return
        before = frame.f_back
        while before is not None and not before.f_code.co_filename.startswith(str(ROOT)):
            before = before.f_back
        if before is None or before.f_code.co_filename != file:
            found[str(Path(file).relative_to(ROOT)), name] = None

    threading.setprofile(note)
    sys.setprofile(note)
    code = cli.main(words[listed:])
    sys.setprofile(None)
    for module, name in found if listed else ():
        print(module, name)
    modules = {module for module, _ in found}
    print(f"exit code {code}: {len(found)} functions called from another module, in {len(modules)} modules")


if __name__ == "__main__":
    main()
