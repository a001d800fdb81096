"""`ribcage/__init__.pyi` lists every command and its options for editors; `make generate` writes it from the commands."""

import ast
import dataclasses
import importlib
import textwrap
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from generated import stale

import ribcage
from ribcage import api, cli, methods
from ribcage.runtime import flags

STUB = Path(ribcage.__file__).with_name("__init__.pyi")
HEAD = '''"""Ribcage: one tool for the whole life of a chest-radiograph model. Research use only.

Made from the commands by tests/test_stub.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

'''
MANY = {str: "Words", Path: "Words", int: "int | Sequence[int]", float: "float | Sequence[float]"}
ALIASES = "Word = str | Path\nWords = str | Path | Sequence[str | Path]\n\n__version__: str\n"


def kind(of: Any) -> str:
    """A type as it may be given to a verb: paths as text, one thing for several."""
    if typing.get_origin(of) is tuple:
        of = typing.get_args(of)[0]
        return " | ".join(MANY[one] for one in typing.get_args(of) or (of,))
    if typing.get_origin(of) is Literal:
        return f"Literal[{', '.join(map(repr, typing.get_args(of)))}]"
    if typing.get_origin(of) in flags.UNIONS:
        return " | ".join(kind(one) for one in typing.get_args(of))
    return {str: "Word", Path: "Word", type(None): "None"}.get(of, getattr(of, "__name__", "Any"))


def default(field: "dataclasses.Field[Any]") -> str:
    value = flags.field_default(field)
    return "" if value is flags.REQUIRED else f" = {str(value)!r}" if isinstance(value, Path) else f" = {value!r}"


def returned(name: str) -> tuple[str, set[str]]:
    """What a verb gives back, as its file writes it, and the import lines that this needs."""
    tree = ast.parse(cli.command_file(name.rstrip("_")).read_text(encoding="utf-8"))
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    text = (
        str(run.returns.value) if isinstance(run.returns, ast.Constant) else ast.unparse(run.returns or ast.Name("Any"))
    )
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    own = sorted({node.name for node in tree.body if isinstance(node, ast.ClassDef)} & names)
    lines = {f"from ribcage.commands.{name} import {one}" for one in own}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            lines |= {f"from {node.module} import {one.name}" for one in node.names if one.name in names}
        elif isinstance(node, ast.Import):
            lines |= {f"import {one.name} as {one.asname}" for one in node.names if one.asname in names}
    return text, lines - {"from pathlib import Path", "from typing import Any", "from typing import Literal"}


def said_defaults(module: Any) -> dict[str, str]:
    """What options become that are left open; of a method, by its name."""
    if not hasattr(module, "defaults"):
        return {}
    if not hasattr(module, "member"):
        return dict(module.defaults())
    kinds = [name for name in methods.method_names() if methods.load_method(name).command == "pretrain"]
    by_method = {name: module.defaults(name) for name in kinds}
    return {
        option: "; ".join(f"{name} {each[option]}" for name, each in by_method.items() if option in each)
        for option in module.defaults()
    }


def function(name: str) -> str:
    """One verb: its options, what it does, and what each option means."""
    module = cli.command(name.rstrip("_"))
    kinds, texts = typing.get_type_hints(module.Options), flags.field_texts(module)
    fields = [
        field
        for field in dataclasses.fields(module.Options)
        if field.name not in ("member", *getattr(module, "UNAVAILABLE", ()))
    ]
    first = getattr(module, "POSITIONAL", ())
    placed = [field for field in fields if field.name in first]
    named = sorted((field for field in fields if field.name not in first), key=lambda field: bool(default(field)))
    words = [f"{field.name}: {kind(kinds[field.name])}{default(field)}," for field in placed]
    words += ["*,"] * bool(named) + [f"{field.name}: {kind(kinds[field.name])}{default(field)}," for field in named]
    words += ["**options: Any,"] * ("member" in kinds)
    for option, usual in said_defaults(module).items():
        texts[option] = f"{texts[option].rstrip('.')} (default: {usual})."
    about = [(module.__doc__ or "").strip(), "", "Args:"]
    about += [textwrap.fill(f"{one.name}: {texts[one.name]}", 110, initial_indent="    ", subsequent_indent="        ") for one in [*placed, *named]]  # fmt: skip
    about += ["    options: its own, as `ribcage … --help` lists them."] * ("member" in kinds)
    doc = textwrap.indent('"""' + "\n".join(about) + '\n"""', "    ", lambda line: bool(line.strip()))
    return f"def {name}(\n{textwrap.indent(chr(10).join(words), '    ')}\n) -> {returned(name)[0]}:\n{doc}\n"


def stub() -> str:
    places = {name: f"from ribcage.{where} import {name} as {name}" for name, where in ribcage._PLACES.items()}
    types = set[str]().union(*(returned(name)[1] for name in api.function_names()))
    lines = sorted({*places.values(), *types}, key=lambda line: (line.startswith("from ribcage"), line))
    return HEAD + "\n".join(lines) + "\n\n" + ALIASES + "\n" + "\n".join(map(function, api.function_names()))


@pytest.mark.generated
def test_the_stub_is_the_programs() -> None:
    assert not stale(STUB, stub())


def test_every_name_in_the_stub_is_there() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    told = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    told |= {
        alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname
    }
    offered = {name for name in dir(ribcage) if not name.startswith("_")} - {"importlib", "Any", "annotations"}
    modules = {file.stem for file in STUB.parent.glob("*.py")} | {file.name for file in STUB.parent.iterdir()}
    assert offered - modules <= told
    assert all(hasattr(ribcage, name) for name in told)


def test_the_types_of_the_reference_are_there() -> None:
    page = STUB.parent.parent / "docs" / "hooks.py"
    (listed,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(page.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TYPES"
    )
    for place in listed:
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(f"ribcage.{module}"), name), f"docs/hooks.py lists ribcage.{place}"
