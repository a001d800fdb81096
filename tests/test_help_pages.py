"""Help pages: every option in a group, common ones first, defaults shown, examples that can be typed, and no torch."""

import inspect
import json
import shlex
import subprocess
import sys

import pytest
from generated import stale

from ribcage import cli, methods
from ribcage.data import datasets
from ribcage.runtime import flags, help_pages

GROUPED = {name for names in help_pages.GROUPS.values() for name in names}
METHODS = [name for name in methods.method_names() if methods.load_method(name).command == "pretrain"]


def page(*words: str) -> str:
    return help_pages.help_page(words[0], cli.command(words[0]), words[1:], everything=True)


@pytest.mark.parametrize("name", cli.command_names())
def test_every_option_has_a_group_and_is_shown_once(name: str) -> None:
    unavailable = getattr(cli.command(name), "UNAVAILABLE", ())
    options = [
        flag for flag in flags.read_flags(cli.command(name), []) if not flag.positional and flag.name not in unavailable
    ]
    lost = {flag.name for flag in options} - GROUPED
    assert not lost, f"add {', '.join(sorted(lost))} to GROUPS in ribcage/runtime/help_pages.py"
    heads = [line.split()[0] for line in page(name).splitlines() if line.startswith("  --") and "--recipe" not in line]
    assert sorted(heads) == sorted(flag.option for flag in options)


def test_no_option_is_in_two_groups() -> None:
    assert len(GROUPED) == sum(map(len, help_pages.GROUPS.values())) and help_pages.COMMON <= GROUPED


def test_a_command_with_many_options_shows_the_common_ones_and_what_is_needed() -> None:
    few = help_pages.help_page("finetune", cli.command("finetune"), [])
    assert len(few.splitlines()) < len(page("finetune").splitlines()) and "--help-all" in few
    assert "--data" in few and "--out" in few and "--epochs" in few and "--betas" not in few


def test_a_default_of_zero_is_shown() -> None:
    seed = next(line for line in page("finetune").splitlines() if line.startswith("  --seed"))
    assert "(default: 0)" in seed


@pytest.mark.parametrize("name", cli.command_names())
def test_the_examples_can_be_typed(name: str) -> None:
    module = cli.command(name)
    assert module.EXAMPLES
    for example in module.EXAMPLES:
        command, *words = shlex.split(example)
        assert command == name and flags.parse(name, module, flags.read_flags(module, words), words)


@pytest.mark.parametrize("words", [("pretrain", METHODS[0]), ("import", "nih"), ("tune", "finetune")], ids=" ".join)
def test_the_help_of_a_member_needs_no_heavy_library(words: tuple[str, ...]) -> None:
    code = f"import sys; from ribcage.cli import main; main([*{words!r}, '--help']); sys.exit(bool({{'torch', 'pandas', 'optuna'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_member_whose_file_has_changed_is_read_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    before = page("pretrain", METHODS[0])
    monkeypatch.setattr(help_pages, "digest", lambda file: "another")
    assert page("pretrain", METHODS[0]) == before


@pytest.mark.generated
def test_own_options_are_those_of_the_files() -> None:
    found = {
        "import": help_pages.generated("import", cli.command("import"), datasets.dataset_names()),
        "pretrain": help_pages.generated("pretrain", cli.command("pretrain"), METHODS),
    }
    assert not stale(help_pages.GENERATED, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def test_the_text_of_an_own_option_is_never_cut_off() -> None:
    for member in (
        *map(methods.load_method, METHODS),
        *(datasets.load_dataset(name).index for name in datasets.dataset_names()),
    ):
        own = flags.keyword_texts(member)
        lines = (inspect.getdoc(member) or "").splitlines()
        begun = [line for line in lines if line.partition(": ")[0] in own]
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if line in begun and after and after not in begun:
                assert after.startswith(" "), f"indent {after!r}: it continues {line!r}"
