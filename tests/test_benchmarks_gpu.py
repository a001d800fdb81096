"""benchmarks/gpu.py runs whole at toy size where there is no GPU."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.mark.integration
def test_a_dry_run_prints_every_row() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--dry-run"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line[:1] == "|"
    ]
    steps = [row for row in rows if len(row) == 7 and re.search(r": (plain|ribcage)", row[0])]
    assert [row[0].rpartition(": ")[2] for row in steps].count("plain") == 6  # five recipes, one of them also large
    assert sum(row[0].endswith("compiled") for row in steps) == 2
    assert all(float(row[2].replace(",", "")) > 0 and row[4] != "0%" for row in steps)
    assert sum(" px" in row[0] and len(row) == 2 for row in rows) == 4, "the loader alone"
    options = [row for row in rows if len(row) == 6 and ": " in row[0]]
    assert len(options) == 12 and all(float(row[2].replace(",", "")) > 0 for row in options)
    assert sum(row[0].startswith(("AdamW", "SGD", "LARS")) for row in rows) == 9
    assert all(float(row[3]) < 1e-5 for row in rows if row[0].startswith(("loop", "one call", "equations")))
