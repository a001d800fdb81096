"""History: all tests of a model, stored in its bundle, so that repeated use of test data is visible.

`tests.json` has no dates, paths or patient data. A test is identified by a key: a hash of the tested images, their
labels, the split and the options that affect the results. A second hash per folder identifies the images alone, so that
testing the same images with other options or labels counts as a further use of them.
"""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ribcage.bundle.spec import ModelSpec
from ribcage.runtime import files, format_1, terminal

FILE = "tests.json"
FORMAT = 2
LARGEST = 1 << 24
"""Maximum size of the file in bytes; it is untrusted."""
ALL = "all"


@dataclass(frozen=True)
class PastTest:
    """One test of a model."""

    number: int
    """Number of the test, counted from 1 over all tests of the model."""
    name: str
    """Names of the datasets."""
    split: str
    key: str
    """Hash of images, labels, split and options."""
    contents: tuple[str, ...]
    """Hash of all images in each dataset folder, whether or not they were tested."""
    weights: str
    """Hash of the model's weights."""
    options: str
    """Options that differ from the defaults, as typed."""
    honest: bool
    """Whether the model was neither trained nor selected on the test images."""
    images: int
    patients: int
    judged: int
    """Number of findings for which both classes occur."""
    metric: str
    """Name of the metric in `value`."""
    value: float | None
    low: float | None
    high: float | None

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        """Sort key of how well the test is documented: patients known, findings, patients, images."""
        return self.patients > 0, self.judged, self.patients, self.images

    def same_data(self, contents: Sequence[str], split: str) -> bool:
        """Whether the test used the same data in an overlapping split."""
        return bool(set(self.contents) & set(contents)) and (self.split == split or ALL in (self.split, split))


def weights_of(folder: Path) -> str:
    """Hash of the weights of the bundle in this folder."""
    with (folder / ModelSpec.load(folder / "model.json").weights_file).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def hashed(*parts: str | bytes) -> str:
    """Hash of the parts, as 16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


# ---- the file


def load_tests(folder: Path) -> list[PastTest]:
    """The tests of the bundle in this folder, in order; [] without a history."""
    file = folder / FILE
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError("the file is too large")
        values = format_1.current(files.read_json(file), FILE, FORMAT)
        if values["format"] != FORMAT:
            raise ValueError("the format version is not supported")
        return [_test(one) for one in values["tests"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{file}, the history of this model's tests, is damaged. Move it to another folder to start a new history."
        ) from None


def _test(values: dict[str, Any]) -> PastTest:
    """One entry, validated."""
    texts = ("name", "split", "key", "weights", "options", "metric")
    counts = ("number", "images", "patients", "judged")
    numbers = [values[name] for name in ("value", "low", "high")]
    valid = set(values) == {item.name for item in fields(PastTest)}
    valid = valid and all(isinstance(values[name], str) and terminal.is_plain(values[name]) for name in texts)
    valid = valid and all(type(values[name]) is int and values[name] >= 0 for name in counts)
    valid = valid and all(one is None or (type(one) in (int, float) and math.isfinite(one)) for one in numbers)
    valid = valid and type(values["honest"]) is bool and all(isinstance(one, str) for one in values["contents"])
    if not valid:
        raise ValueError("an entry of the history is invalid")
    return PastTest(**{**values, "contents": tuple(values["contents"])})


def add(folder: Path, test: PastTest) -> PastTest:
    """Add a test to the bundle in this folder; concurrent tests get different numbers."""
    with _only_writer(folder):
        tests = load_tests(folder)
        numbered = PastTest(**(asdict(test) | {"number": max([0, *(one.number for one in tests)]) + 1}))
        _test(asdict(numbered))  # an invalid entry would make the whole file unreadable
        _write(folder, (*tests, numbered))
    return numbered


def _write(folder: Path, tests: Sequence[PastTest]) -> None:
    text = json.dumps({"format": FORMAT, "tests": [asdict(one) for one in tests]}, indent=1)
    files.write_text(folder / FILE, text + "\n")


def carry(source: Path, target: Path) -> None:
    """Copy the tests of one bundle to another that has the same weights."""
    if tests := load_tests(source):
        _write(target, tests)


@contextlib.contextmanager
def _only_writer(folder: Path, attempts: int = 20) -> Iterator[None]:
    """Context manager: exclusive access to the folder, waiting for other writers."""
    with contextlib.ExitStack() as stack:
        for remaining in reversed(range(attempts)):
            try:
                stack.enter_context(files.only_writer(folder))
                break
            except OSError as error:
                if error.errno is not None or not remaining:  # a lock held by another process has no errno
                    raise
                time.sleep(0.1)
        yield


# ---- number of uses


def use(tests: Sequence[PastTest], images: Sequence[str], split: str) -> list[PastTest]:
    """The tests that used images of this split."""
    return [one for one in tests if one.same_data(images, split)]


def sentence(number: int, earlier: Sequence[PastTest]) -> str:
    """How often the model was tested, and how often on these images."""
    text = f"This is test {number} of the model"
    if not earlier:
        return f"{text} and the first use of this test data."
    several = [str(one.number) for one in earlier]
    listed = ", ".join(several[-5:]) if len(several) <= 5 else f"…, {', '.join(several[-5:])}"
    return (
        f"{text} and the {ordinal(len(earlier) + 1)} use of this test data (before: test{'s' * (len(several) > 1)} "
        f"{listed}). Selecting the best of several results on the same test data makes the result too optimistic."
    )


def ordinal(count: int) -> str:
    """1st, 2nd, 3rd, 11th …"""
    ending = "th" if count // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"


def new(test: PastTest, before: Sequence[PastTest]) -> str:
    """How a test differs from earlier tests."""
    same = use(before, test.contents, test.split)
    if not same:
        named = [one for one in before if (one.name, one.split) == (test.name, test.split)]
        return f"images differ from those of test {named[-1].number} of that name" if named else "first on this data"
    text = f"{ordinal(len(same) + 1)} use of this data"
    if last := next((one for one in reversed(same) if one.key == test.key), None):
        return text + (f", as test {last.number}" if last.weights == test.weights else ", other weights")
    options = ", other options" if same[-1].options != test.options else ", with other rows or labels"
    return text + options


def best_test(tests: Sequence[PastTest], newest: PastTest) -> PastTest:
    """The best-documented unbiased test with the same name, split and weights; the newest of several."""
    alike = [
        one
        for one in tests
        if (one.name, one.split, one.weights) == (newest.name, newest.split, newest.weights) and one.honest
    ]
    return max([*alike, newest], key=lambda one: (one.rank, one.number))
