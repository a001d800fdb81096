"""The README agrees with the program; `make generate` writes its tables."""

import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

import fitting
import pytest
from generated import WRITING
from ranks import CNNS_ONLY, TRANSFORMERS_ONLY

from ribcage import cli, methods
from ribcage.commands import convert
from ribcage.data import datasets, vocabulary
from ribcage.methods.base import ContrastiveMethod, Method
from ribcage.metrics import definitions
from ribcage.metrics.definitions.base import Metric
from ribcage.runtime import flags
from ribcage.runtime.remote.places import Place, remote_places

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
PAGES = [
    README,
    CHINESE,
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "ribcage" / "recipes").glob("*.toml")),
]


def dataset_list() -> str:
    """The public datasets, by their names."""
    public = [name for name in datasets.dataset_names() if name not in ("folder", "phantom")]
    names = ", ".join(f"{datasets.description(name).partition(':')[0]} (`{name}`)" for name in public)
    return textwrap.fill(
        f"Importers for public datasets: {names}.", 128, break_long_words=False, break_on_hyphens=False
    )


def method_table() -> str:
    folder = Path(methods.__file__).parent
    said = {name: cli.command_summary(folder / f"{name}.py").rstrip(".") for name in methods.method_names()}
    rows = [f"| `{fitting.called(name)}` | {said[name]} |" for name in said]
    return "\n".join(["| `ribcage …` | method |", "|---|---|", *rows])


def parts(kind: type[Method]) -> str:
    """How the gradient of a batch is computed from micro-batches."""
    return "caching" if issubclass(kind, ContrastiveMethod) else "accumulation" if kind.divisible else "no"


def pretraining_table() -> str:
    folder = Path(methods.__file__).parent
    networks = dict.fromkeys(TRANSFORMERS_ONLY, "vision transformers") | dict.fromkeys(CNNS_ONLY, "CNNs")
    head = ("method", "description", "uses labels", "networks", "`--micro-batch`")
    rows = [
        f"| `{name}` | {cli.command_summary(folder / f'{name}.py').rstrip('.')} | {'yes' if kind.from_labels else 'no'} | "
        f"{networks.get(name, 'any')} | {parts(kind)} |"
        for name, kind in ((name, methods.load_method(name)) for name in methods.pretraining())
    ]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def training_table() -> str:
    kinds = {
        name: methods.load_method(name)
        for name in methods.method_names()
        if methods.load_method(name).command == "pretrain"
    }
    head = (
        "method",
        "batch",
        "epochs",
        "optimizer",
        "peak rate for a batch of 256",
        "final rate",
        "warm-up epochs",
        "weight decay",
        "options of the method",
        "source",
    )
    rows = [
        f"| `{name}` | {one.batch} | {one.epochs} | {one.optimizer}"
        f"{' ' + ' '.join(map(str, one.betas)) if one.optimizer == 'adamw' else ''} | {one.lr:g} | "
        f"{f'{one.end:g} of the peak' if one.end else '0'} | {one.warmup:g} | "
        f"{one.weight_decay if isinstance(one.weight_decay, str) else f'{one.weight_decay:g}'} | "
        f"{' '.join(f'--{option} {value}' for option, value in one.own.items()) or '–'} | {one.source} |"
        for name, kind in kinds.items()
        for one in kind.hyperparameters
    ]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def metric_table() -> str:
    head = ("key", "metric", "computed from", "range", "better", "variance estimate")
    rows = [
        f"| {' | '.join(metric_cells(name, definitions.load_metric(name)))} |" for name in definitions.metric_names()
    ]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def metric_cells(name: str, one: Metric) -> tuple[str, ...]:
    file = Path(definitions.__file__).parent / f"{name}.py"
    needs = {"scores": "the ranking", "threshold": "scores and a threshold", "probabilities": "probabilities"}
    ends = f"{one.lowest:g} to {one.highest:g}".replace("-", "−")
    better = "higher" if one.higher_is_better else "lower"
    said = cli.command_summary(file).rstrip(".")
    return f"`{name}`", said, needs[one.needs], ends, better, one.variance if one.interval else "no interval"


def place_table() -> str:
    """The options that take remote addresses, by what they name."""
    named: dict[Place, dict[str, list[str]]] = {place: {} for place in Place}
    for name in cli.command_names():
        module = cli.command(name)
        for option, place in remote_places(module).items():
            placed = option in getattr(module, "POSITIONAL", ())
            typed = option.upper() if placed else f"--{option.replace('_', '-')}"
            named[place].setdefault(typed, []).append(name)
    options = {
        place: "; ".join(f"`{typed}` ({', '.join(names)})" for typed, names in found.items())
        for place, found in named.items()
    }
    rows = [f"| {place.what} | {options[place]} | {place.handling} |" for place in Place]
    return "\n".join(["| | options (commands) | at a remote address |", "|---|---|---|", *rows])


TABLES = {
    "metrics": metric_table,
    "datasets": dataset_list,
    "methods": method_table,
    "fitting": fitting.table,
    "formats": convert.table,
    "pretraining": pretraining_table,
    "training": training_table,
    "sources": datasets.dataset_table,
    "findings": vocabulary.finding_table,
    "views": vocabulary.view_table,
    "vocabulary_sources": vocabulary.source_table,
    "places": place_table,
}
CHINESE_TABLES: dict[str, Callable[[], str]] = {
    "datasets": lambda: chinese_table(
        "| `ribcage import …` | 内容 |",
        {name: Path(datasets.__file__).parent / f"{name}.py" for name in datasets.dataset_names()},
    ),
    "methods": lambda: chinese_table(
        "| `ribcage …` | 方法 |",
        {fitting.called(name): Path(methods.__file__).parent / f"{name}.py" for name in methods.method_names()},
    ),
}
"""Those of the Chinese README: each file says in CHINESE what it is; where it does not, its docstring stands."""


def chinese_table(head: str, files: dict[str, Path]) -> str:
    rows = [f"| `{name}` | {in_chinese(file)} |" for name, file in files.items()]
    return "\n".join([head, "|---|---|", *rows])


def in_chinese(file: Path) -> str:
    """CHINESE of a module, read without importing it."""
    found = re.search(r'^CHINESE = "(.*)"$', file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else cli.command_summary(file).rstrip(".")


PLACES = {
    "metrics": ROOT / "docs" / "evaluation.md",
    "formats": ROOT / "docs" / "weights.md",
    "pretraining": ROOT / "docs" / "pretraining.md",
    "training": ROOT / "docs" / "pretraining.md",
    "fitting": ROOT / "docs" / "pretraining.md",
    "sources": ROOT / "docs" / "datasets.md",
    "findings": ROOT / "docs" / "vocabulary.md",
    "views": ROOT / "docs" / "vocabulary.md",
    "vocabulary_sources": ROOT / "docs" / "vocabulary.md",
    "places": ROOT / "docs" / "remote.md",
}
"""Of tables that are not in the README."""


def block(text: str, name: str) -> str:
    found = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.S)
    assert found, f"README has no block {name!r}"
    return found.group(1)


@pytest.mark.generated
@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_the_programs(name: str) -> None:
    page = PLACES.get(name, README)
    text, wanted = page.read_text(encoding="utf-8"), TABLES[name]() + "\n"
    if WRITING:
        text = text.replace(f"<!-- {name} -->\n{block(text, name)}", f"<!-- {name} -->\n{wanted}")
        page.write_text(text, encoding="utf-8")
    assert block(text, name) == wanted


def test_the_readme_is_short_and_the_first_code_comes_early() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    assert (
        next(number for number, line in enumerate(lines, 1) if line.startswith("    ") or line.startswith("```")) < 25
    )


def commands() -> list[tuple[str, str]]:
    """Every command line in the pages, with the page it stands on."""
    found = []
    for page in PAGES:
        if page.name == "extending.md":  # its commands know files that only the page has: see test_docs_examples.py
            continue
        for line in page.read_text(encoding="utf-8").splitlines():
            text = re.sub(r"^[\s#$>]*", "", line).split("  #")[0]
            text = re.sub(r" \$\w+", "", text)  # a variable of a script
            text = re.sub(r" --recipe tune/\S+", "", text)  # a file that the command before it writes
            if re.match(r"ribcage [a-z]+ ", text) and "…" not in text:
                found.append((page.name, text))
    return found


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value[:60])
def test_every_command_in_the_pages_is_understood(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, *words = shlex.split(line)[1:]
    module = cli.command(name)
    assert flags.parse(name, module, flags.read_flags(module, words), words)


def test_links_in_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in links(page):
            made = target.startswith(("reference/", "../reference/", "zh.md"))  # docs/hooks.py makes those
            assert made or (page.parent / target).exists(), f"{page.name} links to {target}"


# ---- in Chinese


def links(page: Path) -> list[str]:
    """Where the links of a page lead, but for those to the web."""
    return re.findall(r"\]\(((?!http)[^)#]+)", page.read_text(encoding="utf-8"))


def code(page: Path) -> list[str]:
    """The lines of code in a page, without what is said beside them."""
    blocks = re.findall(r"^```.*?^```|^    .+?$", page.read_text(encoding="utf-8"), re.S | re.M)
    return [re.split(r"\s+# |\s{3,}", line.strip())[0] for line in "\n".join(blocks).splitlines()]


def outline(page: Path) -> list[str]:
    """The levels of headings, and the columns of every row of a table, but for the datasets: the Chinese page describes
    them, since docs/datasets.md is in English."""
    lines = re.sub(
        "<!-- datasets -->.*<!-- /datasets -->", "", page.read_text(encoding="utf-8"), flags=re.S
    ).splitlines()
    return [
        f"{line.split(' ')[0]}" if line[0] == "#" else f"{line.count('|')} bars"
        for line in lines
        if line[:1] in ("#", "|")
    ]


@pytest.mark.parametrize("part", [code, outline, links], ids=lambda part: part.__name__)
def test_the_chinese_readme_has_all_that_the_english_one_has(part: Callable[[Path], list[str]]) -> None:
    ours, theirs = (
        [one for one in part(page) if one not in ("README.md", "README.zh-CN.md")] for page in (README, CHINESE)
    )
    assert theirs == ours


@pytest.mark.generated
@pytest.mark.parametrize("name", CHINESE_TABLES)
def test_the_chinese_readme_has_the_programs_tables(name: str) -> None:
    text, wanted = CHINESE.read_text(encoding="utf-8"), CHINESE_TABLES[name]() + "\n"
    if WRITING:
        text = text.replace(f"<!-- {name} -->\n{block(text, name)}", f"<!-- {name} -->\n{wanted}")
        CHINESE.write_text(text, encoding="utf-8")
    assert block(text, name) == wanted


def test_the_two_readmes_know_of_each_other() -> None:
    assert "README.zh-CN.md" in links(README) and "README.md" in links(CHINESE)
