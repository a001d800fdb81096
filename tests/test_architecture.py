"""The order of the packages: a package imports only from packages that docs/architecture.md lists before it."""

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ribcage
from benchmarks import mutants

PACKAGE = Path(ribcage.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
ORDER = re.findall(r"^    [├└]── (\w+)/", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
"""The packages from low to high, as the tree on the page lists them."""
LOOSE = ("api", "cli", "__main__", "__init__")
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400
"""Lines of a file that need no reason."""
ALLOWED = {("data.dataset_folder", "reports.html"): "a notebook shows a dataset folder"}
"""The only import from a package that is listed later, made when it is needed, and why."""
USUAL = ("runtime", "imaging", "metrics", "data", "models", "methods", "bundle", "inference", "evaluation", "training")
"""Packages that import with torch, torchvision, timm, pandas, pyarrow, OpenCV, safetensors and NumPy alone."""


def package(module: str) -> str:
    return module.split(".")[0]


def place(module: str) -> int:
    """Where the package of a module stands in the order; what lies loose stands on top."""
    return len(ORDER) if package(module) in LOOSE else ORDER.index(package(module))


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(file) for file in FILES}
TESTED = (
    {name.rstrip("_") for name in MODULES} | {name.rpartition(".")[0] for name in MODULES if "." in name} | {"viewer"}
)
"""What a test file can be named after: modules, packages, and the page of the server."""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> frozenset[str]:
    """The package's own modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("ribcage.") for alias in node.names if alias.name.startswith("ribcage.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ribcage":
            base = str(node.module).removeprefix("ribcage").removeprefix(".")
            names = {f"{base}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name if name in MODULES else base for name in names if name in MODULES or base}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively: write 'from ribcage …'"
    return frozenset(found)


def test_the_page_lists_the_packages_and_nothing_lies_loose() -> None:
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert {file.stem for file in PACKAGE.glob("*.py")} <= set(LOOSE)
    assert packages <= set(ORDER), f"docs/architecture.md does not list {', '.join(sorted(packages - set(ORDER)))}"
    assert all((PACKAGE / name).is_dir() for name in ORDER)


def test_imports_point_down() -> None:
    pairs = {(module_name(file), name) for file in FILES for name in imports(file)} - ALLOWED.keys()
    upward = [f"{module} imports {name}" for module, name in sorted(pairs) if place(name) > place(module)]
    assert not upward, f"{', '.join(upward)}, which docs/architecture.md lists later"


def test_no_module_imports_itself_through_others() -> None:
    graph = {module_name(file): imports(file) - {module_name(file)} for file in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


OF_THE_PROJECT = {
    "architecture": "the order of the packages",
    "docs_examples": "the files that docs/extending.md shows",
    "pages_run": "the commands of README and docs",
    "readme": "the README and its tables",
    "site": "the documentation as a site",
    "stub": "ribcage/__init__.pyi",
    "tutorials": "docs/tutorials",
    "hostile": "a sample of benchmarks/hostile.py",
    "trials": "benchmarks/trials.py",
    "benchmarks_gpu": "benchmarks/gpu.py",
}
"""Test files that are not named after a module → what they test."""


def test_a_test_file_has_the_name_of_what_it_tests() -> None:
    """Of a module, a package or a command, after that of its package where two share it; an aspect of it may follow."""
    names = {"_".join(parts[at:]) for name in TESTED for parts in [name.split(".")] for at in range(len(parts))}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        words = file.stem.split("_")[1:]
        beginnings = {"_".join(words[:count]) for count in range(1, len(words) + 1)}
        assert beginnings & names or "_".join(words) in OF_THE_PROJECT, (
            f"{file.name}: no module, package or command has this name"
        )


def test_the_modules_of_mutation_testing_and_their_test_files_exist() -> None:
    for pattern, names in mutants.TESTED.items():
        assert list(mutants.ROOT.glob(pattern)), pattern
        assert [name for name in names if not mutants.files_of((name,))] == [], pattern


def test_mutation_testing_reads_this_tree_only_and_leaves_no_copy(tmp_path: Path) -> None:
    (fault,) = mutants.sample(1, seed=0, only="ribcage/training/optim.py")
    whole = (mutants.ROOT / fault.file).read_bytes()
    with pytest.raises(SystemExit), mutants.workplace(tmp_path) as work:
        copy = mutants.tree(work / "trees" / fault.key) / fault.file
        copy.write_text(mutants.faulty(fault), encoding="utf-8")
        os.kill(os.getpid(), signal.SIGTERM)
    assert list((tmp_path / "trees").iterdir()) == [] and (mutants.ROOT / fault.file).read_bytes() == whole


def test_slow_tests_exist() -> None:
    """A test that was renamed would run among the quick ones."""
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    known = {
        f"{file.stem}::{name}"
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    listed = Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").split()
    assert set(listed) <= known and listed == sorted(set(listed)), sorted(set(listed) - known)


def test_the_walks_of_the_page_name_files_and_what_is_in_them() -> None:
    rows = re.findall(r"^\| `([a-z_/]+\.py)` (`[^|]+`) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for file, names in rows:
        text = (PACKAGE / file).read_text(encoding="utf-8")
        own = names.split(" → ")[0].split(", or ")[0]  # what follows stands in another file
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", own):
            assert re.search(rf"\b(def |class )?{name}\b", text), f"{file} has no {name}"


def test_no_module_is_a_drawer_without_a_name() -> None:
    assert not {file.stem for file in FILES} & {"utils", "util", "helpers", "common", "core", "misc"}


def test_a_long_file_says_why_it_is_one() -> None:
    for file in FILES:
        lines, about = len(file.read_text(encoding="utf-8").splitlines()), ast.get_docstring(tree(file)) or ""
        assert lines <= LONGEST or re.search(r"\bone file\b", about, re.IGNORECASE), (
            f"{module_name(file)} has {lines} lines: split it by its ideas, or say in its docstring why it is one file"
        )


def test_what_trains_needs_only_the_usual_packages() -> None:
    modules = sorted({f"ribcage.{module_name(file)}" for file in FILES if package(module_name(file)) in USUAL})
    missing = (
        "rich",
        "numba",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "openvino",
        "pydicom",
        "gdcm",
        "openjpeg",
        "jpeg_ls",
        "sklearn",
        "matplotlib",
        "tyro",
        "tensorboard",
        "mlflow",
        "wandb",
    )
    code = f"import sys, importlib\nfor name in {missing!r}: sys.modules[name] = None\nfor name in {modules!r}: importlib.import_module(name)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_command_has_any_in_a_signature() -> None:
    functions = [
        (file.name, node)
        for file in sorted((PACKAGE / "commands").glob("*.py"))
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef)
    ]
    bad = []
    for file, node in functions:
        arguments = [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        kinds = [one.annotation for one in arguments if one is not None] + [node.returns]
        if any(re.search(r"\bAny\b", ast.unparse(kind)) for kind in kinds if kind is not None):
            bad.append(f"{file}: {node.name}")
    assert not bad, f"Any in the signature of {', '.join(bad)}"


MAY_HOLD_ANY = {
    "api": (1, "options of any command"),
    "bundle/formats": (None, "weights and configurations of other programs, before they are checked"),
    "bundle/weights": (1, "keywords of timm.create_model"),
    "commands/run": (1, "options of any command"),
    "methods/base": (1, "keywords of any method"),
    "models/architectures": (None, "timm passes its options to a constructor, as keywords"),
    "models/catalogue": (1, "timm's configuration of a model has no public type"),
    "models/opaque/onnx_graph": (4, "ONNX messages, whose classes protobuf makes when it is imported"),
    "models/pretrained": (3, "models and configurations of timm"),
    "models/stem": (1, "timm's configuration of a model has no public type"),
    "runtime/files": (2, "the mode decides the type of an open file; JSON of any file, before it is checked"),
    "runtime/flags": (9, "type annotations and values of any option"),
    "runtime/format_1": (2, "JSON before it is checked"),
    "runtime/help_pages": (2, "type annotations of any option; JSON of the stored help"),
    "runtime/limits": (2, "options of any command"),
    "runtime/terminal": (1, "keywords of rich.console.Console"),
    "runtime/typed_json": (2, "JSON before it is checked, and as it is written"),
    "server/reference_page": (1, "FastAPI's description of the routes, which is JSON"),
    "server/schemas": (1, "FastAPI's own type of a route's responses"),
    "training/optim": (1, "timm's models define their layers in methods that nn.Module does not have"),
}
"""Where a public function or field may hold Any: package or module → how many may (None: any number), and why."""


def holds_any(kind: ast.expr | None) -> bool:
    """Whether a type is Any or a dict of Any."""
    text = ast.unparse(kind).strip("\"'") if kind is not None else ""
    return text == "Any" or bool(re.search(r"dict\[[^\[\]]*\bAny\]", text))


def untyped(body: list[ast.stmt]) -> int:
    """Number of public functions and fields of public classes that hold Any."""
    count = 0
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            count += untyped(node.body)
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            count += sum(holds_any(each.annotation) for each in fields if not ast.unparse(each.target).startswith("_"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            own = node.args
            arguments = [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg]
            kinds = [one.annotation for one in arguments if one is not None] + [node.returns]
            count += any(map(holds_any, kinds))
    return count


def test_no_dict_of_anything_crosses_modules() -> None:
    found: dict[str, int] = {}
    for file in FILES:
        name = file.relative_to(PACKAGE).with_suffix("").as_posix()
        area = next((each for each in MAY_HOLD_ANY if name == each or name.startswith(each + "/")), name)
        found[area] = found.get(area, 0) + untyped(tree(file).body)
    more = {name: count for name, count in found.items() if count and name not in MAY_HOLD_ANY}
    assert not more, f"Any in public signatures: {more}"
    wrong = {name: found[name] for name, (most, _) in MAY_HOLD_ANY.items() if found[name] != (most or found[name] or 1)}
    assert not wrong, f"MAY_HOLD_ANY counts otherwise: {wrong}"


def test_mypy_is_strict_with_few_exceptions() -> None:
    mypy = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    plain = {"explicit_package_bases", "python_version", "files", "strict", "overrides"}
    exceptions = [name for name in mypy if name not in plain] + [
        name for one in mypy.get("overrides", []) for name in one if name != "module"
    ]
    assert mypy["strict"] is True and len(exceptions) <= 10


def test_the_project_names_no_registry_and_no_path_of_a_machine() -> None:
    tracked = [file for file in PACKAGE.parent.rglob("*") if file.suffix in (".py", ".md", ".toml", ".txt", ".yml")]
    own = [file for file in tracked if ".venv" not in file.parts and file.name != Path(__file__).name]
    bad = re.compile(r"index-url|pypi\.org/simple|/root/|/home/\w+/")
    assert not [file for file in own if bad.search(file.read_text(encoding="utf-8"))]


def test_a_wheel_has_every_file_of_the_package() -> None:
    """Setuptools takes modules by itself and other files by the patterns of pyproject.toml."""
    told = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = told["tool"]["setuptools"]["package-data"]["ribcage"]
    taken = {file for pattern in patterns for file in PACKAGE.glob(pattern)}
    others = {
        file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc", ".nbc", ".nbi")
    }
    assert others <= taken, f"package-data lacks {sorted(str(file.relative_to(PACKAGE)) for file in others - taken)}"


def test_the_walks_name_functions_that_exist() -> None:
    walks = (
        (PACKAGE.parent / "docs" / "architecture.md")
        .read_text(encoding="utf-8")
        .split("## Call paths")[1]
        .split("\n## ")[0]
    )
    stops = re.findall(r"`(\w[\w/]*/\w+\.py)`((?:,? `[A-Za-z_.]+`)*)", walks)
    assert len(stops) > 30
    lacking = []
    for module, names in stops:
        file = PACKAGE / module if (PACKAGE / module).exists() else PACKAGE.parent / module
        tops = [one for one in tree(file).body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
        there = {one.name for one in tops}
        for kind in (one for one in tops if isinstance(one, ast.ClassDef)):
            inside = [one for one in kind.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            there |= {f"{kind.name}.{one.name}" for one in inside}
            there |= {f"{kind.name}.{ast.unparse(one.target)}" for one in kind.body if isinstance(one, ast.AnnAssign)}
        lacking += [f"{module} {name}" for name in re.findall(r"`([^`]+)`", names) if name not in there]
    assert not lacking


def test_nothing_waits_by_the_wall_clock() -> None:
    """A wall clock may jump or run backwards."""
    clock = re.compile(r"\btime\.(time|time_ns)\(|\bfrom time import\b")
    found = {module_name(file) for file in FILES if clock.search(file.read_text(encoding="utf-8"))}
    assert found <= {"commands.runs"}  # the age of a run, from the time of its files


def test_names_that_a_package_lists_exist() -> None:
    for file in sorted(PACKAGE.rglob("__init__.py")):
        name = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
        module = importlib.import_module(name)
        assert all(hasattr(module, each) for each in getattr(module, "__all__", ())), name
