"""The command line: fast help, and all wrong options in one line."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from refusals import has_facts

from ribcage import cli
from ribcage.commands import serve
from ribcage.runtime import flags, help_pages, limits


@dataclass(frozen=True)
class Ended:
    """A command in this process that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def run(*words: str) -> Ended:
        capsys.readouterr()
        code = cli.main(words)
        return Ended(code, *capsys.readouterr())

    return run


HELP = """
import sys
from ribcage import cli
cli.main(["--help"])
loaded = ["--help"] if {"torch", "numpy"} & set(sys.modules) else []
for words in [["import", "nih"], *([name] for name in cli.command_names())]:
    cli.main([*words, "--help"])
    loaded += [" ".join(words)] if "torch" in sys.modules else []
sys.exit(f"torch is imported by the help of {loaded}" if loaded else 0)
"""


def test_help_lists_every_command_and_explains_its_options_without_importing_torch() -> None:
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in cli.command_names())
    for name in cli.command_names():
        known = flags.read_flags(cli.command(name), [])
        assert not [flag.option for flag in known if not flag.text], name


@pytest.mark.parametrize(
    "words",
    [["import", "phantom", "--out", "made"], ["serve", "model"], ["export", "model"]],
    ids=lambda words: words[0],
)
def test_a_number_below_nothing_is_refused_in_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = flags.read_flags(cli.command(words[0]), [])
    numbers = [flag.option for flag in plain if flag.kind in (int, float, int | None)]
    assert numbers
    for option in numbers:
        assert cli.main([*words, option, "-3"]) == 2
        said = capsys.readouterr()
        assert option in said.err and "-3" in said.err and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir())


def test_what_others_call_a_command_leads_to_ours() -> None:
    assert set(cli.SYNONYMS.values()) <= set(cli.command_names()) and not set(cli.SYNONYMS) & set(cli.command_names())
    for word, ours in (("train", "finetune"), ("test", "evaluate"), ("infer", "predict"), ("audit", "inspect")):
        with pytest.raises(cli.UsageError, match=f"Did you mean '{ours}'"):
            cli.command(word)


def test_an_unknown_command_is_one_line_with_the_nearest_name_and_code_2() -> None:
    words = [sys.executable, "-m", "ribcage", "imprt"]
    result = subprocess.run(words, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Did you mean 'import'?" in result.stderr


def test_all_wrong_options_are_named_in_one_line(answer: Callable[..., Ended]) -> None:
    result = answer("import", "nih", "/data", "--sise", "256", "--fit", "padd", "--limit", "x", "--out", "o")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for part in (
        "--sise (did you mean --size?)",
        "'padd' (did you mean pad?)",
        "--limit takes a whole number, not 'x'",
    ):
        assert part in result.stderr


def test_an_error_of_the_users_shows_no_traceback_unless_asked(answer: Callable[..., Ended]) -> None:
    plain = answer("inspect", "nowhere")
    assert plain.returncode != 0 and plain.stderr.count("\n") == 1 and "Traceback" not in plain.stderr
    with pytest.raises(FileNotFoundError, match="nowhere"):
        answer("inspect", "nowhere", "--debug")


@pytest.mark.parametrize("package", ["prometheus_client", "fastapi", "onnxruntime"])
def test_serving_without_its_packages_names_the_command_that_installs_them(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("ribcage.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package.replace('_', '.')}.*ribcage\[serve\]"):
        serve.run(serve.Options(models=()))


# ---- flags, on a command made up here


@dataclass(frozen=True)
class Options:
    """Options of the synthetic command."""

    what: str
    rate: float = 0.1
    mode: Literal["fast", "slow"] = "fast"
    names: tuple[str, ...] = ()
    quiet: bool = False
    size: int | None = None
    member: dict[str, Any] = field(default_factory=dict)


def own(*, queue: int = 8, mlp: bool = True) -> None:
    """A member's function.

    queue: how many keys are kept
    mlp: whether the head has a hidden layer
    """


@pytest.fixture
def made_up() -> ModuleType:
    module = ModuleType("made_up")
    module.__file__ = __file__
    module.Options, module.POSITIONAL, module.member = Options, ("what",), lambda name: own  # type: ignore[attr-defined]
    return module


def parsed(module: ModuleType, *words: str) -> Options:
    return flags.parse("x", module, flags.read_flags(module, list(words)), list(words))


def test_flags_become_typed_fields(made_up: ModuleType) -> None:
    options = parsed(
        made_up, "it", "--rate", "-0.5", "--names", "a", "b", "--quiet", "--size=7", "--queue", "4", "--no-mlp"
    )
    assert options == Options("it", -0.5, "fast", ("a", "b"), True, 7, {"queue": 4, "mlp": False})


def test_defaults_stay_when_nothing_is_given(made_up: ModuleType) -> None:
    assert parsed(made_up, "it") == Options("it")


def test_a_missing_argument_a_bad_choice_and_an_unexpected_word_are_named_together(made_up: ModuleType) -> None:
    with pytest.raises(limits.UsageError) as error:
        parsed(made_up, "--mode", "fst", "--rate")
    for part in (
        "WHAT is missing",
        "--mode takes fast or slow, not 'fst' (did you mean fast?)",
        "--rate needs a value",
    ):
        assert part in str(error.value)


def test_the_values_of_an_unknown_flag_are_no_mistakes_of_their_own(made_up: ModuleType) -> None:
    with pytest.raises(limits.UsageError) as error:
        parsed(made_up, "it", "--quue", "1", "2")
    assert has_facts(str(error.value), "--quue", "--queue")


def test_a_members_help_comes_from_its_docstring(made_up: ModuleType) -> None:
    page = help_pages.help_page("x", made_up, ["it"])
    assert has_facts(page, "--queue", "(default: 8)")


def test_options_may_stand_before_the_dataset() -> None:
    from ribcage.commands import import_

    words = ["--out", "o", "nih", "ROOT", "--split", "arnoweng"]
    options = flags.parse("import", import_, flags.read_flags(import_, words), words)
    assert (options.dataset, options.member) == ("nih", {"split": "arnoweng"})


def test_a_name_with_markup_in_it_is_shown_as_it_is(answer: Callable[..., Ended]) -> None:
    result = answer("inspect", "x[/bold]")
    assert "x[/bold] " in result.stderr and "fault" not in result.stderr


def test_all_folders_that_cannot_be_inspected_are_named_at_once(answer: Callable[..., Ended]) -> None:
    result = answer("inspect", "nowhere", "elsewhere", "nhi:/x")
    assert result.returncode == 2
    assert all(text in result.stderr for text in ("nowhere", "elsewhere", "Did you mean 'nih'?"))


def test_an_unknown_dataset_is_refused_with_the_list_of_all(answer: Callable[..., Ended]) -> None:
    from ribcage.data import datasets

    said = answer("import", "nhi", "/data", "--out", "o").stderr
    assert all(name in said for name in datasets.dataset_names())


# ---- several processes


@pytest.mark.parametrize("name", cli.command_names())
def test_only_commands_that_can_use_several_processes_run_under_a_launcher(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    can = any(flag.name == "devices" for flag in flags.read_flags(cli.command(name), [])) or name == "evaluate"
    assert (name in cli.PARALLEL) == can
    monkeypatch.setenv("WORLD_SIZE", "2")
    if can or name == "tune":  # its error is another: what it needs is missing
        with pytest.raises(cli.UsageError) as refused:
            cli.dispatch([name])
        assert "torchrun" not in str(refused.value)
        return
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert cli.main([name]) == 2
        said = capsys.readouterr()
        assert not said.out and said.err.count("\n") == (rank == "0")
        assert rank != "0" or has_facts(said.err, "2", f"ribcage {name}", "torchrun")


@pytest.mark.parametrize("names", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_a_single_process_of_a_launcher_may_run_any_command(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in names.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError) as refused:
        cli.dispatch(["convert"])
    assert "torchrun" not in str(refused.value)
