"""Which tests are slow: `make test PYTEST_ADDOPTS=--junitxml=times.xml`, then `python tests/durations.py times.xml`.

Writes slow.txt, the list of what `make test-fast` leaves out: test functions whose cases take half a second or more in
all. What is listed and was not run keeps its place.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

LIMIT = 0.5
SLOW = Path(__file__).with_name("slow.txt")


def seconds(report: Path) -> Counter[str]:
    """Each test function, and how long all its cases took."""
    found: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.get("classname", "").rpartition(".")[2]
        found[f"{module}::{case.get('name', '').partition('[')[0]}"] += float(case.get("time", 0))
    return found


def main() -> None:
    """Write the list anew."""
    found = seconds(Path(sys.argv[1]))
    before = SLOW.read_text(encoding="utf-8").split() if SLOW.exists() else []
    slow = {name for name, spent in found.items() if spent >= LIMIT} | {name for name in before if name not in found}
    SLOW.write_text("".join(f"{name}\n" for name in sorted(slow)), encoding="utf-8")
    print(
        f"{len(slow)} of {len(found)} test functions are slow; the others take {sum(s for n, s in found.items() if n not in slow):.0f} s."
    )


if __name__ == "__main__":
    main()
