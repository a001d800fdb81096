"""Mutation testing: faults (mutants) are put into the code, one at a time, and a test must fail.

    python -m benchmarks.mutants --work DIR                       # 300 mutants, seed 0; an interrupted run resumes
    python -m benchmarks.mutants --work DIR --mutants 20 --seed 1 --only ribcage/training/optim.py

Each mutant is a copy of the package with one changed expression: a comparison, an operator, a constant, a condition, or
a removed statement. coverage.py first measures which tests run which line. For each mutant, the tests that run the
changed line are run, the fastest first, until one fails. Undetected mutants are printed with their lines. Equivalent
mutants, which do not change the behaviour, are listed with their reasons in `mutants_equivalent.toml` and not counted.
"""

import argparse
import ast
import contextlib
import copy
import functools
import gc
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.toml")
TESTED = {
    "ribcage/metrics/*.py": (
        "metrics_detection",
        "metrics_calibration",
        "ranking",
        "curves",
        "thresholds",
        "resampling",
        "placements",
        "intervals",
        "multiclass",
        "summaries",
        "pointing",
        "evaluation",
        "comparison",
        "reliability",
    ),
    "ribcage/metrics/definitions/*.py": (
        "definitions",
        "resampling",
        "summaries",
        "intervals",
        "evaluation",
        "comparison",
    ),
    "ribcage/evaluation/classification.py": (
        "evaluation",
        "classifier_validation",
        "comparison",
        "reliability",
        "reports_classification",
    ),
    "ribcage/evaluation/leakage.py": ("leakage", "provenance", "evaluate", "selection"),
    "ribcage/data/provenance.py": ("provenance", "leakage", "bundle_io"),
    "ribcage/imaging/fingerprint.py": ("fingerprint", "audit", "leakage"),
    "ribcage/imaging/duplicates.py": ("fingerprint", "audit", "leakage"),
    "ribcage/imaging/hamming.py": ("fingerprint", "audit", "leakage"),
    "ribcage/data/loader.py": ("loader", "datasets", "training_run", "finetune"),
    "ribcage/training/optim.py": ("optim", "trainer", "hyperparameters", "training_run"),
    "ribcage/training/trainer.py": ("trainer", "training_run", "supervised"),
    "ribcage/training/run.py": ("training_run", "run_folder", "runs", "finetune"),
    "ribcage/training/checkpoint.py": ("checkpoint", "saving", "training_run", "files", "digest"),
    "ribcage/training/saving.py": ("saving", "checkpoint", "training_run"),
    "ribcage/training/shards.py": ("saving", "sharding"),
    "ribcage/training/shard_writer.py": ("saving", "sharding"),
    "ribcage/runtime/digest.py": ("digest", "bundle_io", "files"),
    "ribcage/bundle/io.py": ("bundle", "bundle_io", "formats_reading", "convert", "detect"),
    "ribcage/imaging/dicom/*.py": ("dicom", "medical_jpeg", "image_file", "hostile"),
    "ribcage/imaging/codecs.py": ("image_file", "hostile"),
    "ribcage/imaging/headers.py": ("image_file", "hostile"),
    "ribcage/imaging/medical_jpeg.py": ("medical_jpeg", "dicom", "image_file", "hostile"),
}
"""Modules that are mutated, and the test files (test_NAME.py, test_NAME_*.py) that hold what they promise."""
SECONDS = 90
"""A mutant whose tests use this many seconds of a core, or CONTENDED by the clock, is stopped: noticed, as a hanging
test would be; how many those are is printed."""
CONTENDED = 400
BUDGET = 20.0
"""Seconds of tests (as measured without a fault) that are run for one mutant."""
PYTEST = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore:Module already imported")
CHOSEN = ("-m", "not integration", "-k", "not processes and not nodes and not signal and not killed")
"""Left out: what starts processes of its own, where no line can be seen."""
NOTICED = ("killed", "hung")
RUNNING = set[int]()
"""Process groups of tests that have not ended."""
PRELOAD = "torch torch._dynamo torchvision timm numpy pandas pyarrow.parquet cv2 pytest numba pydicom sklearn.metrics"


@dataclass(frozen=True)
class Mutant:
    """One fault: where, and what was changed."""

    file: str
    number: int
    """Among all faults that this file can have."""
    line: int
    source: str
    change: str
    same: int = 0
    """Among the faults of this file that read alike."""

    @property
    def key(self) -> str:
        """A name that stays when other lines of the file change."""
        return hashlib.sha256(f"{self.file}|{self.source}|{self.change}|{self.same}".encode()).hexdigest()[:12]


# ---- faults

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
PAIRS = (
    ("min", "max"),
    ("any", "all"),
    ("minimum", "maximum"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("argmin", "argmax"),
)
NAMES = dict(PAIRS) | {second: first for first, second in PAIRS}


class Faults(ast.NodeTransformer):
    """Visits all places where a fault can be; puts in the one with the number that is asked for."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted, self.found = wanted, list[tuple[int, str]]()

    def _offer(self, node: ast.AST, changed: ast.AST | None, change: str) -> ast.AST:
        number = len(self.found)
        self.found.append((getattr(node, "lineno", 0), change))
        if number != self.wanted:
            return node
        return ast.copy_location(changed if changed is not None else ast.Pass(), node)

    def visit(self, node: ast.AST) -> ast.AST:
        """Annotations, docstrings, errors' texts and what only type checkers read can hold no fault."""
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.arg | ast.Assert):
            return node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return node
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)  # type: ignore[assignment]
            return node
        if isinstance(node, ast.FunctionDef):
            node.args.defaults = [self.visit(one) for one in node.args.defaults]  # type: ignore[misc]
            node.args.kw_defaults = [one and self.visit(one) for one in node.args.kw_defaults]  # type: ignore[misc]
            node.body = [self.visit(one) for one in node.body]  # type: ignore[misc]
            return node
        if isinstance(node, ast.ClassDef):
            node.body = [self.visit(one) for one in node.body]  # type: ignore[misc]
            return node
        node = self.generic_visit(node)
        faults = getattr(self, f"_of_{type(node).__name__}", None)
        return faults(node) if faults else node

    def _of_Compare(self, node: ast.Compare) -> ast.AST:  # noqa: N802
        other = COMPARISONS.get(type(node.ops[0]))
        if other is None:
            return node
        changed = copy.deepcopy(node)
        changed.ops[0] = other()
        return self._offer(node, changed, f"{type(node.ops[0]).__name__} → {other.__name__}")

    def _of_BinOp(self, node: ast.BinOp) -> ast.AST:  # noqa: N802
        other = OPERATORS.get(type(node.op))
        if other is None or _is_text(node.left) or _is_text(node.right):
            return node
        changed = ast.BinOp(copy.deepcopy(node.left), other(), copy.deepcopy(node.right))
        return self._offer(node, changed, f"{type(node.op).__name__} → {other.__name__}")

    def _of_AugAssign(self, node: ast.AugAssign) -> ast.AST:  # noqa: N802
        return node if _is_text(node.value) else self._offer(node, None, "statement left out")

    def _of_BoolOp(self, node: ast.BoolOp) -> ast.AST:  # noqa: N802
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        changed = ast.BoolOp(other, copy.deepcopy(node.values))
        return self._offer(node, changed, f"{type(node.op).__name__} → {type(other).__name__}")

    def _of_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:  # noqa: N802
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            return self._offer(node, copy.deepcopy(node.operand), f"{type(node.op).__name__} left out")
        return node

    def _of_Constant(self, node: ast.Constant) -> ast.AST:  # noqa: N802
        if isinstance(node.value, bool):
            return self._offer(node, ast.Constant(not node.value), f"{node.value} → {not node.value}")
        if isinstance(node.value, int | float) and math.isfinite(node.value):
            other = node.value + 1 if isinstance(node.value, int) else node.value * 1.5 + (node.value == 0)
            return self._offer(node, ast.Constant(other), f"{node.value} → {other}")
        return node

    def _of_If(self, node: ast.If) -> ast.AST:  # noqa: N802
        changed = ast.If(ast.UnaryOp(ast.Not(), copy.deepcopy(node.test)), node.body, node.orelse)
        return self._offer(node, changed, "condition turned round")

    def _of_IfExp(self, node: ast.IfExp) -> ast.AST:  # noqa: N802
        changed = ast.IfExp(copy.deepcopy(node.test), copy.deepcopy(node.orelse), copy.deepcopy(node.body))
        return self._offer(node, changed, "branches exchanged")

    def _of_Expr(self, node: ast.Expr) -> ast.AST:  # noqa: N802
        return self._offer(node, None, "statement left out") if isinstance(node.value, ast.Call) else node

    def _of_Name(self, node: ast.Name) -> ast.AST:  # noqa: N802
        if node.id not in NAMES or not isinstance(node.ctx, ast.Load):
            return node
        return self._offer(node, ast.Name(NAMES[node.id], ast.Load()), f"{node.id} → {NAMES[node.id]}")

    def _of_Attribute(self, node: ast.Attribute) -> ast.AST:  # noqa: N802
        if node.attr not in NAMES or not isinstance(node.ctx, ast.Load):
            return node
        changed = ast.Attribute(copy.deepcopy(node.value), NAMES[node.attr], ast.Load())
        return self._offer(node, changed, f"{node.attr} → {NAMES[node.attr]}")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def faults(file: str) -> list[Mutant]:
    """All faults that a module can have."""
    text = (ROOT / file).read_text(encoding="utf-8")
    visitor, lines = Faults(), text.splitlines()
    visitor.visit(_parsed(text))
    found, alike = list[Mutant](), Counter[tuple[str, str]]()
    for number, (line, change) in enumerate(visitor.found):
        source = lines[line - 1].strip()
        found.append(Mutant(file, number, line, source, change, alike[source, change]))
        alike[source, change] += 1
    return found


def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def faulty(mutant: Mutant) -> str:
    """The text of the module with the fault in it."""
    tree = Faults(mutant.number).visit(_parsed((ROOT / mutant.file).read_text(encoding="utf-8")))
    return ast.unparse(ast.fix_missing_locations(tree))


# ---- processes: everything heavy is imported once, and each run is a fork


@contextlib.contextmanager
def _forked(folder: Path, said: Path) -> Iterator[None]:
    """In the child: the package below `folder` is the one that is imported."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["PYTHONDONTWRITEBYTECODE"] = ""
    sys.path[:0] = [str(folder), str(folder / "tests")]
    yield


def _tests(folder: Path, said: Path, names: list[str], *more: str, seconds: int = SECONDS) -> int:
    """Start the tests in a fork; its process id."""
    child = os.fork()
    if child:
        RUNNING.add(child)
        return child
    code = 3
    try:
        with _forked(folder, said):
            import pytest

            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            code = int(pytest.main([*PYTEST, *CHOSEN, *more, *names]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(child: int, until: float) -> int | None:
    """The exit code, None while it runs; past its time it is killed, with all that it started."""
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        RUNNING.discard(child)
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() > until:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        RUNNING.discard(child)
        return -signal.SIGKILL
    return None


# ---- which tests run which line


def files_of(names: tuple[str, ...]) -> list[str]:
    """Test files by the middle of their names."""
    found = {file.name for name in names for file in (ROOT / "tests").glob(f"test_{name}*.py")}
    return sorted(f"tests/{name}" for name in found)


def modules() -> dict[str, list[str]]:
    """Each module that is mutated, with its test files."""
    return {
        str(file.relative_to(ROOT)): files_of(names)
        for pattern, names in TESTED.items()
        for file in sorted(ROOT.glob(pattern))
        if file.name != "__init__.py" and files_of(names)
    }


def measured(work: Path, jobs: int, only: str) -> None:
    """Run each test file once under coverage.py; its lines by test, and the seconds of each test, as JSON."""
    wanted = sorted({test for file, tests in modules().items() if file.startswith(only) for test in tests})
    (work / "coverage").mkdir(parents=True, exist_ok=True)
    waiting = [test for test in wanted if not (work / "coverage" / f"{Path(test).stem}.json").exists()]
    running: dict[int, str] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            test = waiting.pop(0)
            running[_covered(work / "coverage", test)] = test
        for child, test in list(running.items()):
            code = _ended(child, math.inf)
            if code is not None:
                del running[child]
                print(f"{test}: measured (exit {code})", flush=True)
        time.sleep(0.2)


def _covered(folder: Path, test: str) -> int:
    child = os.fork()
    if child:
        RUNNING.add(child)
        return child
    code = 3
    try:
        with _forked(ROOT, folder / f"{Path(test).stem}.log"):
            import coverage
            import pytest

            watch = Seconds()
            config = folder / f"{Path(test).stem}.ini"
            config.write_text("[run]\ndynamic_context = test_function\n", encoding="utf-8")
            seen = coverage.Coverage(data_file=None, source_pkgs=["ribcage"], config_file=str(config))
            seen.start()
            code = int(pytest.main([*PYTEST, *CHOSEN, test], plugins=[watch]))
            seen.stop()
            lines: dict[str, dict[str, list[str]]] = {}
            for file in seen.get_data().measured_files():
                place = str(Path(file).relative_to(ROOT))
                by_line = seen.get_data().contexts_by_lineno(file)
                lines[place] = {
                    str(line): [name.rsplit(".", 1)[-1] for name in names] for line, names in by_line.items()
                }
            passed = {name: spent for name, spent in watch.seconds.items() if name not in watch.failed}
            made = json.dumps({"seconds": passed, "lines": lines})
            (folder / f"{Path(test).stem}.json").write_text(made, encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Seconds:
    """How long each test took, with all of its cases and what they needed; and which failed without any fault."""

    def __init__(self) -> None:
        self.seconds, self.failed = dict[str, float](), set[str]()

    def pytest_runtest_logreport(self, report: object) -> None:
        """Called by pytest."""
        name = str(getattr(report, "nodeid", "")).split("::")[-1].split("[")[0]
        self.seconds[name] = self.seconds.get(name, 0.0) + float(getattr(report, "duration", 0.0))
        if getattr(report, "failed", False):
            self.failed.add(name)


@functools.cache
def _known(file: Path) -> dict[str, dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))


def choose(work: Path, mutant: Mutant, tests: list[str]) -> list[str]:
    """The tests that run the line, quickest first; then all of a file that runs it in a fixture or while it is read. As
    many as fit into the budget, one at least."""
    found: dict[str, float] = {}
    whole: dict[str, float] = {}
    for test in tests:
        known = _known(work / "coverage" / f"{Path(test).stem}.json")
        names = _seen(known["lines"].get(mutant.file, {}), mutant)
        found |= {f"{test}::{name}": known["seconds"].get(name, 0.0) for name in names if name in known["seconds"]}
        if "" in names:
            whole |= {f"{test}::{name}": seconds for name, seconds in known["seconds"].items()}
    later = {name: seconds for name, seconds in whole.items() if name not in found}
    chosen, spent = list[str](), 0.0
    for each in (found, later):
        for name, seconds in sorted(each.items(), key=lambda item: item[1]):
            if chosen and spent + seconds > BUDGET:
                break
            chosen.append(name)
            spent += seconds
    return chosen


def _seen(lines: dict[str, list[str]], mutant: Mutant) -> set[str]:
    """Who runs the line. In a function that numba compiles no line is seen: then, who runs anything of the module."""
    body = _body(mutant.file, mutant.line)
    if body and not any(str(line) in lines for line in body):
        return {name for names in lines.values() for name in names} - {""}
    return set(lines.get(str(mutant.line), []))


@functools.cache
def _body(file: str, line: int) -> range:
    """The lines of the innermost function around a line, without its head."""
    tree, found = _parsed((ROOT / file).read_text(encoding="utf-8")), range(0)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= (node.end_lineno or 0):
            found = range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    return found


# ---- the sample


@contextlib.contextmanager
def workplace(work: Path) -> Iterator[Path]:
    """A folder for copies of the package, where faults are put in; the tree that this runs from is only read. What a
    killed run left is removed first; at the end, however it comes, the tests that still run are stopped."""
    shutil.rmtree(work / "trees", ignore_errors=True)
    (work / "trees").mkdir(parents=True)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield work
    finally:
        signal.signal(signal.SIGTERM, before)
        for child in RUNNING:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        for folder in (work / "trees").iterdir():
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def tree(folder: Path) -> Path:
    """A copy of what the tests need, with links to all that stays as it is."""
    folder.mkdir(parents=True)
    for name in (
        "tests",
        "docs",
        "benchmarks",
        "README.md",
        "README.zh-CN.md",
        "pyproject.toml",
        "CHANGELOG.md",
        ".ci",
        "Makefile",
    ):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "ribcage", folder / "ribcage")
    return folder


def sample(count: int, seed: int, only: str) -> list[Mutant]:
    """Faults drawn with equal chance among all that all modules can have."""
    every = [one for file in modules() if file.startswith(only) for one in faults(file)]
    return random.Random(seed).sample(every, min(count, len(every)))


def equivalent() -> dict[str, str]:
    """Faults that change nothing, by their key, and why."""
    if not EQUIVALENT.exists():
        return {}
    return {key: str(one["why"]) for key, one in tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).items()}


def control(work: Path, mutants: list[Mutant], jobs: int) -> None:
    """Without a fault the same tests must pass, where and as the faults will be: else what is noticed would prove
    nothing."""
    known = modules()
    chosen = {name for one in mutants for name in choose(work, one, known[one.file])}
    mark, named = work / "control", hashlib.sha256(" ".join(sorted(chosen)).encode()).hexdigest()
    if mark.exists() and mark.read_text(encoding="utf-8") == named:
        return
    waiting = [sorted(group) for _, group in groupby(sorted(chosen), key=lambda name: name.split("::")[0])]
    folder, running = tree(work / "trees" / "control"), dict[int, Path]()
    for one in {one.file: one for one in mutants}.values():
        (folder / one.file).write_text(faulty(replace(one, number=-1)), encoding="utf-8")
    while waiting or running:
        while waiting and len(running) < jobs:
            group = waiting.pop(0)
            log = work / "trees" / f"{Path(group[0].split('::')[0]).stem}.log"
            running[_tests(folder, log, group, "-x", seconds=3600)] = log
        for child, log in list(running.items()):
            code = _ended(child, math.inf)
            if code:
                said = log.read_text(encoding="utf-8")[-2000:]
                raise SystemExit(f"{log.stem} fails without a fault (exit {code}):\n{said}")
            if code is not None:
                del running[child]
        time.sleep(0.1)
    shutil.rmtree(folder)
    mark.write_text(named, encoding="utf-8")
    print(f"{len(chosen)} test functions pass without a fault", flush=True)


def run(work: Path, mutants: list[Mutant], jobs: int) -> dict[str, str]:
    """What became of each: killed, survived, or no test that runs it. Kept in a file, so that a killed run goes on."""
    file = work / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    done = {one["key"]: one["became"] for one in map(json.loads, lines)}
    tests, running = modules(), dict[int, tuple[Mutant, Path, float]]()
    waiting = [one for one in mutants if one.key not in done]

    def note(mutant: Mutant, became: str) -> None:
        done[mutant.key] = became
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": mutant.key, "became": became, **asdict(mutant)}, ensure_ascii=False) + "\n")
        print(
            f"{len(done):4} {became:9} {mutant.file}:{mutant.line}  {mutant.change}  |  {mutant.source[:90]}",
            flush=True,
        )

    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop(0)
            chosen = choose(work, mutant, tests[mutant.file])
            if not chosen:
                note(mutant, "untested")
                continue
            folder = tree(work / "trees" / mutant.key)
            (folder / mutant.file).write_text(faulty(mutant), encoding="utf-8")
            child = _tests(folder, work / "trees" / f"{mutant.key}.log", chosen, "-x")
            running[child] = mutant, folder, time.monotonic() + CONTENDED
        for child, (mutant, folder, until) in list(running.items()):
            code = _ended(child, until)
            if code is None:
                continue
            del running[child]
            note(mutant, "survived" if code == 0 else "hung" if code == -signal.SIGKILL else "killed")
            shutil.rmtree(folder)
            if code:
                (work / "trees" / f"{mutant.key}.log").unlink()
        time.sleep(0.05)
    return {one.key: done[one.key] for one in mutants}


def wilson(count: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share = count / of
    middle, half = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def main() -> None:
    """Draw, run, and say how many went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="only modules whose path begins so")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    asked.work.mkdir(parents=True, exist_ok=True)
    work = asked.work.resolve()
    for name in PRELOAD.split():
        __import__(name)
    gc.freeze()  # what is shared by all forks is never looked through again
    start = time.monotonic()
    with workplace(work):
        measured(work, asked.jobs, asked.only)
        mutants = sample(asked.mutants, asked.seed, asked.only)
        control(work, mutants, asked.jobs)
        became, same = run(work, mutants, asked.jobs), equivalent()
    print()
    missed = [one for one in mutants if became[one.key] not in NOTICED and one.key not in same]
    for one in sorted(missed, key=lambda one: (one.file, one.line)):
        print(f"{became[one.key]:9} {one.key}  {one.file}:{one.line}  {one.change}  |  {one.source}")
    alike = sum(became[one.key] not in NOTICED for one in mutants) - len(missed)
    counted = len(mutants) - alike
    low, high = wilson(len(missed), counted)
    print(
        f"\n{counted} mutants (seed {asked.seed}; {alike} more are equivalent): {counted - len(missed)} detected "
        f"({sum(one == 'hung' for one in became.values())} because they exceeded their time limit), "
        f"{len(missed)} undetected: {len(missed) / counted:.1%} ({low:.1%} to {high:.1%}). "
        f"{(time.monotonic() - start) / 60:.0f} min."
    )


if __name__ == "__main__":
    main()
