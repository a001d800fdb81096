"""What the site has beside the pages in docs/, made while it is built: the Chinese README as a page, and the reference.

MkDocs calls `on_config` and `on_files`. `pages()` is every made page, by its path below docs/.
"""

import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from ribcage import api, cli, methods
from ribcage.data import datasets
from ribcage.runtime import flags, help_pages

ROOT = Path(__file__).parent.parent
TYPES = (
    "imaging.gray_image.GrayImage",
    "data.index.Index",
    "data.dataset_folder.DatasetFolder",
    "data.collection.Datasets",
    "data.label_policy.Policy",
    "imaging.augment.View",
    "data.loader.Loader",
    "data.batch.Batch",
    "models.backbone.Backbone",
    "methods.Method",
    "methods.Step",
    "bundle.spec.ModelSpec",
    "bundle.io.Bundle",
    "bundle.io.Classifier",
    "bundle.io.Detector",
    "inference.predictions.Predictions",
    "metrics.boxes.BoxTable",
    "bundle.formats.Published",
    "data.provenance.Provenance",
    "bundle.ood.OODCheck",
)
"""What goes from one part to another, in the order of a model's life."""
MEMBERS = {"import": datasets.dataset_names, "pretrain": methods.method_names}
"""Commands whose options depend on what their first word names, and where those are listed."""


# ---- what MkDocs calls


def on_config(config: Any) -> Any:
    """Put the made pages of the reference into the navigation."""
    listed: list[Any] = [{title(path): path} for path in pages() if path.startswith("reference/")]
    for part in config.nav:
        if "Reference" in part:
            part["Reference"] = listed
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the made pages."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


# ---- pages


def pages() -> dict[str, str]:
    """Every made page: its path below docs/, and its text."""
    commands = {f"reference/{name}.md": command_page(name) for name in cli.command_names()}
    return {
        "zh.md": chinese(),
        "reference/index.md": overview(),
        "reference/python.md": python_page(),
        **commands,
    }


def title(path: str) -> str:
    """What a page of the reference is called in the navigation."""
    return {"index": "All commands", "python": "From Python"}.get(Path(path).stem, Path(path).stem)


def chinese() -> str:
    """README.zh-CN.md, whose links lead from the root."""
    text = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    text = re.sub(r"^\[English\].*\n+", "", text, flags=re.M).replace("](docs/", "](")
    return re.sub(r"\[([^\]]*)\]\((?!http)[A-Z][\w.-]*\)", r"`\1`", text)  # files of the root are no pages


def overview() -> str:
    """All commands in one table."""
    rows = [
        f"| [`{name}`]({name}.md) | {cli.command_summary(cli.command_file(name))} |" for name in cli.command_names()
    ]
    return OVERVIEW.format(rows="\n".join(rows))


OVERVIEW = """# All commands

These pages are generated from the code, like `ribcage COMMAND --help`. In Python, each command is a function with the
same options; see [From Python](python.md).

| command | description |
|---|---|
{rows}

`--recipe NAME` reads options from a recipe or a TOML file; options on the command line take precedence.
`--debug` prints the traceback of an error.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | an error, which is printed in one line |
| 2 | invalid options |
| 75 | the run was stopped by a signal; everything is saved |
| 130 | the run was stopped by Ctrl-C |
"""


def command_page(name: str) -> str:
    """One command: how it is written, what it does, its options, and those of what it works on."""
    module = cli.command(name)
    found = flags.read_flags(module, [])
    placed = [f"[{flag.option} …]" if flag.many else flag.option for flag in found if flag.positional]
    parts = [
        f"# ribcage {name}",
        f"    {' '.join(['ribcage', name, *placed, '[options]'])}",
        prose(inspect.getdoc(module) or ""),
        table([flag for flag in found if flag.positional], "argument"),
        table(
            sorted(
                (flag for flag in found if not flag.positional), key=lambda flag: flag.default is not flags.REQUIRED
            ),
            "option",
        ),
    ]
    members = MEMBERS[name]() if name in MEMBERS else ()
    parts += [member_part(name, module, member) for member in members]
    return "\n\n".join(part for part in parts if part) + "\n"


def member_part(name: str, module: Any, member: str) -> str:
    """The own options of a dataset or a method, where the command takes it."""
    if name == "pretrain" and methods.load_method(member).command != "pretrain":
        return ""
    own = flags.member_flags(module.member(member), known=set())
    return f"## {name} {member}\n\n" + (table(own, "option") or "It has no additional options.")


def table(found: list[flags.Flag], head: str) -> str:
    """Options as a table; empty when there are none."""
    rows = [
        f"| `{flag.option}` | {cell(values(flag))} | {cell(standing(flag))} | {escape(flag.text)} |" for flag in found
    ]
    return "\n".join([f"| {head} | value | default | description |", "|---|---|---|---|", *rows]) if rows else ""


def values(flag: flags.Flag) -> str:
    """What may stand behind an option."""
    return "" if flag.kind is bool else help_pages.value_name(flag.kind).replace("|", " | ")


def standing(flag: flags.Flag) -> str:
    """The default as one would type it."""
    if flag.default is flags.REQUIRED:
        return "" if flag.positional else "required"
    if isinstance(flag.default, bool):
        return "yes" if flag.default else "no"
    return "" if flag.default in (None, (), "") else help_pages.typed_default(flag.default)


def cell(text: str) -> str:
    """Code in a table, where a bar may stand as it is."""
    return f"`{text}`" if text else ""


def prose(text: str) -> str:
    """A docstring as Markdown: its arguments become a list."""
    before, _, named = text.partition("\nArgs:\n")
    lines = textwrap.dedent(named).replace("\n    ", " ").splitlines()
    pairs = [line.partition(":") for line in lines if ":" in line]
    listed = "\n".join(f"- `{name}` –{text}" for name, _, text in pairs)
    return f"{before.rstrip()}\n\n{listed}".strip()


def escape(text: str) -> str:
    """A bar would end a cell."""
    return text.replace("|", "\\|")


# ---- Python


def python_page() -> str:
    """The verbs, and the types that go from one to another."""
    said = [
        f"| `ribcage.{verb}(…)` | {cli.command_summary(cli.command_file(verb.rstrip('_')))} |"
        for verb in api.function_names()
    ]
    return "\n\n".join(
        [
            "# From Python",
            "Each command is a function with the same options. Paths may be given as text, and a single value may be"
            " given where several are accepted.",
            '    import ribcage\n\n    data = ribcage.import_("phantom", out="data/phantom", images=500)',
            "\n".join(["| function | description |", "|---|---|", *said]),
            "Large libraries are imported only when they are used, and editors can complete every option"
            " (`ribcage/__init__.pyi`). Errors are raised as a `ValueError` with a one-line message.",
            "## Types",
            *(type_part(place) for place in TYPES),
        ]
    )


def type_part(place: str) -> str:
    """A class: what it is, its fields, its methods."""
    module = importlib.import_module(f"ribcage.{place.rpartition('.')[0]}")
    kind = getattr(module, place.rpartition(".")[2])
    parts = [f"### ribcage.{place}", prose(inspect.getdoc(kind) or ""), fields_table(kind), methods_list(kind)]
    return "\n\n".join(part for part in parts if part)


def fields_table(kind: type) -> str:
    """The fields of a dataclass, with the sentences below them."""
    if not dataclasses.is_dataclass(kind):
        return ""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        texts |= flags.class_texts(base) if dataclasses.is_dataclass(base) else {}
    rows = [
        f"| `{field.name}` | {cell(written(field.type))} | {escape(texts.get(field.name, ''))} |"
        for field in dataclasses.fields(kind)
        if not field.name.startswith("_")
    ]
    return "\n".join(["| field | type | description |", "|---|---|---|", *rows])


def written(kind: Any) -> str:
    """A type as one would write it."""
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text)


def methods_list(kind: type) -> str:
    """The public methods that a class defines itself, each with the first sentence of its docstring."""
    found = []
    for name, member in vars(kind).items():
        function: Any = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        function = getattr(function, "fget", None) or getattr(function, "func", None) or function
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        called = f"{name}({arguments(function)})" if callable(member) or function is not member else name
        called = name if isinstance(member, property) or hasattr(member, "func") else called
        said = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        found.append(f"- `{called}` – {said}")
    return "\n".join(found)


def arguments(function: Any) -> str:
    """Names and defaults of a function's arguments, without types."""
    listed = [
        one.replace(annotation=inspect.Parameter.empty)
        for one in inspect.signature(function).parameters.values()
        if one.name not in ("self", "cls")
    ]
    return str(inspect.Signature(listed))[1:-1]
