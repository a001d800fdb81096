"""Check the installation: packages, devices, decoders, folders and terminal, and say how to fix what is broken.

Everything is tried: packages are imported, a small DICOM file of every transfer syntax is decoded, files are written.
The exit code is 1 if something that is needed is broken.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = ("doctor", "doctor --json doctor.json")


@dataclass(frozen=True)
class Options:
    """What to do with what was found."""

    json: Path | None = None
    """Write the results to this file."""


def run(options: Options) -> dict[str, Any]:
    """Look, show, write; return what was found. Raises where something that is needed is broken."""
    import contextlib
    import faulthandler

    from ribcage.training import checkup

    with contextlib.suppress(OSError):  # a notebook has no such stream
        faulthandler.enable()  # a package that ends the process shows where
    found: list[checkup.Check] = []
    for one in checkup.checks():
        show(one, first=not found or found[-1].group != one.group)
        found.append(one)
    facts = checkup.facts(found)
    if options.json is not None:
        write(options.json, facts)
    broken = [one for one in found if one.broken]
    if broken:
        mend = "; ".join(dict.fromkeys(one.mend for one in broken if one.mend))
        names = ", ".join(one.name for one in broken)
        raise OSError(f"Needed, and broken here: {names}." + (f" To mend: {mend}" if mend else ""))
    print("\nAll that is needed is here.")
    return facts


def show(one: Any, first: bool) -> None:
    """A line for what was looked at, and one for what mends it."""
    if first:
        print(f"\n{one.group}")
    mark = " " if one.good else "✗" if one.broken else "!"
    print(f"{mark} {one.name:<26}  {one.says}", flush=True)
    if one.mend:
        print(f"{'':30}{one.mend}")


def write(file: Path, facts: dict[str, Any]) -> None:
    """All of it as JSON."""
    import json

    from ribcage.runtime import files

    files.write(file, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    print(f"Wrote {file}")
