"""Check the installation (packages, devices, decoders, folders, terminal) and suggest fixes for problems.

The checks import the packages, decode a small DICOM file in every transfer syntax, and write files. The exit code is 1
if a required check fails.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.training.checkup import InstallationCheck, Report

PLACES = {"json": Place.FILE_OUT}
EXAMPLES = ("doctor", "doctor --json doctor.json")


@dataclass(frozen=True)
class Options:
    """What to do with the results."""

    json: Path | None = None
    """Write the results to this JSON file."""


def run(options: Options) -> "Report":
    """Check, print, write; return the results. Raises OSError where a required check fails."""
    import contextlib
    import faulthandler

    from ribcage.training import checkup

    with contextlib.suppress(OSError):  # a notebook has no such stream
        faulthandler.enable()  # a package that ends the process shows where
    found: list[checkup.InstallationCheck] = []
    for one in checkup.checks():
        show(one, first=not found or found[-1].group != one.group)
        found.append(one)
    facts = checkup.checkup_facts(found)
    if options.json is not None:
        write(options.json, facts)
    broken = [one for one in found if one.broken]
    if broken:
        fix = "; ".join(dict.fromkeys(one.fix for one in broken if one.fix))
        names = ", ".join(one.name for one in broken)
        raise OSError(f"Required checks failed: {names}." + (f" To fix: {fix}" if fix else ""))
    print("\nAll required checks passed.")
    return facts


def show(one: "InstallationCheck", first: bool) -> None:
    """A line for the result, and one for the fix."""
    if first:
        print(f"\n{one.group}")
    mark = " " if one.good else "✗" if one.broken else "!"
    print(f"{mark} {one.name:<28}  {one.result}", flush=True)
    if one.fix:
        print(f"{'':32}{one.fix}")


def write(file: Path, facts: "Report") -> None:
    """The results as JSON."""
    import json

    from ribcage.runtime import files

    files.write_text(file, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    print(f"Wrote {address_text(file)}")
