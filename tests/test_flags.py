"""Options as words and as recipes: lossless both ways, and faults in one line."""

import dataclasses
import re
import shlex
import typing
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal

import pytest

from ribcage import cli
from ribcage.runtime import flags, limits

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "ribcage" / "recipes").glob("*.toml"))
PLAIN: dict[Any, Any] = {str: "two words", Path: Path("文件 夹/x"), int: -7, float: 2.5e-05}
MEMBERS = {
    "import": ("dataset", "phantom", {"images": 12}),
    "pretrain": ("method", "moco", {"queue": 512}),
    "run": ("name", "small-moco", {"epochs": 1, "queue": 512}),
    "tune": ("command", "finetune", {"epochs": 1, "adapt": "head"}),
}


def other(kind: Any, default: Any) -> Any:
    """A value of this type that is not the default."""
    if typing.get_origin(kind) in (UnionType, typing.Union):
        return other(typing.get_args(kind)[0], default)
    if typing.get_origin(kind) is Literal:
        return next(choice for choice in typing.get_args(kind) if choice != default)
    if typing.get_origin(kind) is tuple:
        value = other(typing.get_args(kind)[0], None)
        return (value, value, value)
    return not default if kind is bool else PLAIN[kind]


def read(name: str, module: ModuleType, words: list[str]) -> Any:
    return flags.parse(name, module, flags.read_flags(module, words), words)


@pytest.mark.parametrize("name", cli.command_names())
def test_the_words_of_options_are_read_as_those_options(name: str) -> None:
    module = cli.command(name)
    kinds = typing.get_type_hints(module.Options)
    values = {
        item.name: other(kinds[item.name], flags.field_default(item))
        for item in dataclasses.fields(module.Options)
        if item.name != "member"
    }
    if name in MEMBERS:
        values |= {MEMBERS[name][0]: MEMBERS[name][1], "member": MEMBERS[name][2]}
    options = module.Options(**values)
    assert read(name, module, flags.option_line(module, options)) == options


@pytest.mark.parametrize("name", cli.command_names())
def test_every_option_alone_is_read_as_it_was(name: str) -> None:
    """The others stay at their defaults: no word slips into the place of another."""
    module = cli.command(name)
    kinds = typing.get_type_hints(module.Options)
    fields = [item for item in dataclasses.fields(module.Options) if item.name != "member"]
    needed = {
        item.name: other(kinds[item.name], None) for item in fields if flags.field_default(item) is flags.REQUIRED
    }
    if name in MEMBERS:
        needed[MEMBERS[name][0]] = MEMBERS[name][1]
    for item in fields:
        if item.name in needed:
            continue
        options = module.Options(**needed, **{item.name: other(kinds[item.name], flags.field_default(item))})
        assert read(name, module, flags.option_line(module, options)) == options, item.name


@pytest.mark.parametrize("word", ["inf", "-inf", "nan", "1e999", "9" * 30, "9" * 5000])
@pytest.mark.parametrize("kind", [int, float, int | None, float | None])
def test_no_option_takes_a_number_that_is_none(kind: Any, word: str) -> None:
    with pytest.raises(ValueError, match=r"takes a .*number|out of range"):
        flags.parse_word("--lr", kind, word)


# ---- a command made up here


@dataclass(frozen=True)
class Options:
    """Options of the synthetic command."""

    first: str
    second: str = "b"
    rate: float = 0.1
    sides: tuple[int, ...] = (224,)
    names: tuple[str, ...] = ()
    quiet: bool = False
    loud: bool = True
    mode: Literal["fast", "slow"] = "fast"
    out: Path | None = None
    member: dict[str, Any] = field(default_factory=dict)


def own(*, queue: int = 8, mlp: bool = True, parts: tuple[str, ...] = ()) -> None:
    """Options of a member."""


@pytest.fixture
def made_up() -> ModuleType:
    module = ModuleType("made_up")
    module.__file__ = __file__
    module.Options, module.POSITIONAL, module.member = Options, ("first", "second"), lambda name: own  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    "options",
    [
        Options("a"),
        Options("a", "c"),
        Options("a", sides=()),
        Options("a", names=("-x", "--quiet", "y")),
        Options("a", names=("-1", "x=y")),
        Options("a", rate=-1e-300),
        Options("a", out=Path("-odd")),
        Options("a", quiet=True, loud=False, mode="slow"),
        Options("a", "c", member={"queue": 4, "mlp": False, "parts": ("p", "q")}),
    ],
)
def test_awkward_values_survive_too(made_up: ModuleType, options: Options) -> None:
    assert read("x", made_up, flags.option_line(made_up, options)) == options


def test_positional_words_keep_their_order(made_up: ModuleType) -> None:
    assert flags.option_line(made_up, Options("a", "c", rate=1.0)) == ["a", "c", "--rate", "1.0"]


# ---- recipes


def recipe(folder: Path, text: str) -> str:
    file = folder / "配方 r.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


TEXT = """
rate = 1e-3   # a comment
sides = [320, 256]
names = ["a b", "-c"]
quiet = true
loud = false
mode = "slow"
out = "runs/x"
queue = 4
"""
FROM_TEXT = Options(
    "it", rate=1e-3, sides=(320, 256), names=("a b", "-c"), quiet=True, loud=False, mode="slow", out=Path("runs/x"),
    member={"queue": 4},
)  # fmt: skip


def test_a_recipe_gives_values_of_every_kind(made_up: ModuleType, tmp_path: Path) -> None:
    file = recipe(tmp_path, TEXT)
    assert read("x", made_up, ["it", "--recipe", file]) == FROM_TEXT
    assert read("x", made_up, ["it", f"--recipe={file}"]) == FROM_TEXT


def test_what_is_typed_goes_before_the_recipe(made_up: ModuleType, tmp_path: Path) -> None:
    typed = [
        "it",
        "--rate",
        "2",
        "--names",
        "z",
        "--no-quiet",
        "--loud",
        "--recipe",
        recipe(tmp_path, TEXT),
        "--sides",
        "8",
    ]
    expected = dataclasses.replace(FROM_TEXT, rate=2.0, names=("z",), quiet=False, loud=True, sides=(8,))
    assert read("x", made_up, typed) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rte = 1", "--rte .*--rate"),
        ("rate = 'high'", "--rate .*'high'"),
        ("rate = [1, 2]", "unexpected '2' in "),
        ("[rate]\nx = 1", "'rate'.*table"),
        ("rate = 2020-01-01", "'rate'.*date"),
        ("rate = ", r"r\.toml cannot be read"),
        ("rate = 1\nrate = 2", r"r\.toml cannot be read"),
    ],
)
def test_a_wrong_recipe_is_one_line(made_up: ModuleType, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(limits.UsageError) as error:
        read("x", made_up, ["it", "--recipe", recipe(tmp_path, text)])
    assert re.search(says, str(error.value)) and "\n" not in str(error.value)


def test_a_recipe_that_is_missing_or_no_text_is_one_line(made_up: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    for words, says in (
        (["--recipe"], "--recipe needs a name or a file"),
        (["--recipe", "--quiet"], "--recipe needs a name or a file"),
        (["--recipe", "nowhere.toml"], "nowhere.toml"),
        (["--recipe", str(tmp_path / "b.toml")], "cannot be read"),
        (["--recipe", "a.toml", "--recipe", "b.toml"], "--recipe can be given only once"),
    ):
        with pytest.raises(limits.UsageError, match=says):
            read("x", made_up, ["it", *words])


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_published_recipe_is_understood_by_the_command_in_its_header(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    header = [
        line.removeprefix("#").strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    lines = [shlex.split(line) for line in header if line.startswith("ribcage ")]
    using = [line for line in lines if f"--recipe {file.stem} " in shlex.join(line)]
    assert using, f"{file.name} does not say how it is run"
    for line in lines:
        options = read(line[1], cli.command(line[1]), line[2:])
        if line in using:
            changed = flags.option_line(cli.command(line[1]), options)
            assert read(line[1], cli.command(line[1]), changed) == options


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (["--resume"], True), (["--resume", "auto"], "auto"), (["--resume=auto"], "auto"), (["--no-resume"], False),
        ([], False), (["--resume", "--seed", "1"], True), (["--resume=no"], False),
    ],
)  # fmt: skip
def test_a_switch_may_have_a_word(said: list[str], value: object) -> None:
    from ribcage.commands import finetune

    asked = finetune.Options(data=("a",), out=Path("b"), resume=value)  # type: ignore[arg-type]
    found = read("finetune", finetune, ["--data", "a", "--out", "b", *said])
    assert found.resume == value
    assert read("finetune", finetune, flags.option_line(finetune, asked)).resume == value


def test_a_switch_with_another_word_is_refused() -> None:
    from ribcage.commands import finetune

    with pytest.raises(limits.UsageError, match="--resume"):
        read("finetune", finetune, ["--data", "a", "--out", "b", "--resume=later"])
