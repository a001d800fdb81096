"""Which options take remote addresses: every option of every command either uses one or refuses it in one line."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import fsspec
import pytest
from refusals import has_facts

from ribcage import cli, methods
from ribcage.data import datasets
from ribcage.runtime import flags
from ribcage.runtime.flags import Flag
from ribcage.runtime.remote import objects, places
from ribcage.runtime.remote.places import Place
from ribcage.runtime.remote.run_command import run_command

MEMBERS = {
    "import": datasets.dataset_names(),
    "inspect": [f"{name}:root" for name in datasets.dataset_names()],
    "pretrain": methods.pretraining(),
    "tune": ("finetune", "localise", "distil"),
    "run": ("small-moco", "distil-eeea-c2-to-eeea-c2"),
}
"""Commands whose further options depend on their first word, and these words."""
ADDRESSES = {
    "s3://xray/a": "s3://xray/a", "S3://xray/a": "s3://xray/a", "s3:/xray/a": "s3://xray/a", "sftp://host/a/": "sftp://host/a", "hf:xray/a": "hf://xray/a",
}  # fmt: skip
"""Addresses as typed, and as they are written."""
WITHIN = {"train=s3://xray/a": "train=s3://xray/a", "nih:GS://xray/a": "nih:gs://xray/a"}
"""Values of text options that contain addresses."""
NONE = "memory://none/a"


@pytest.fixture(autouse=True)
def _nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No command creates a folder that is called like an address."""
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert not [file.name for file in (tmp_path / "here").rglob("*") if ":" in file.name]
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def text_flags(name: str, word: str = "") -> list[Flag]:
    """The options of a command that take text or paths."""
    found = flags.read_flags(cli.command(name), [word] if word else [])
    return [one for one in found if {"str", "Path"} & set(_names(one.kind))]


def _names(kind: object) -> list[str]:
    inside = [name for one in getattr(kind, "__args__", ()) for name in _names(one)]
    return [getattr(kind, "__name__", ""), *inside]


def settled(module: ModuleType, flag: Flag, word: str) -> tuple[object, list[str]]:
    """The value of an option as typed, and what is wrong with it."""
    try:
        found, wrong = places.settled(module, {flag.name: flags.convert_words(flag, [word])})
    except ValueError as error:
        return None, [f"{flag.option}: {error}"]
    return found[flag.name], wrong


@pytest.mark.parametrize("name", cli.command_names())
def test_every_option_uses_an_address_or_refuses_it(name: str) -> None:
    module, seen = cli.command(name), set()
    for word in MEMBERS.get(name, ("",)):
        for flag in text_flags(name, word):
            seen.add(flag.name)
            more = {} if "Path" in _names(flag.kind) else WITHIN
            for address, written in (ADDRESSES | more).items():
                found, wrong = settled(module, flag, address)
                if flag.name in places.remote_places(module):
                    assert not wrong and flags.plain_word(found[0] if flag.many else found) == written
                else:
                    assert len(wrong) == 1 and flag.option in wrong[0] and "s3:/x" not in wrong[0]
            for address in ("https://user:SECRET@host/a", "s3://KEY:SECRET@xray/a", "gs://a/b?X-Goog-Signature=SECRET"):
                _, wrong = settled(module, flag, address)
                assert len(wrong) == 1 and flag.option in wrong[0] and "SECRET" not in wrong[0]
    assert set(places.remote_places(module)) <= seen


def test_an_option_whose_help_names_a_file_or_folder_takes_addresses_or_has_a_reason_not_to() -> None:
    local = {
        ("serve", "token_file"), ("serve", "log_predictions"), ("merge", "out"), ("demo", "out"), ("run", "name"),
    }  # fmt: skip
    for name in cli.command_names():
        for flag in text_flags(name):
            if "Path" in _names(flag.kind):
                assert (flag.name in places.remote_places(cli.command(name))) != ((name, flag.name) in local)


@pytest.mark.parametrize("line", [
    ["serve", "m", "--token-file", "s3://xray/a"], ["merge", "s3://xray/a"], ["demo", "--out", "s3://xray/a"],
    ["run", "s3://xray/a.toml"], ["finetune", "--recipe", "s3://xray/a.toml"], ["import", "mimic", ".", "--patients", "s3://a/b"],
])  # fmt: skip
def test_a_refusal_is_one_line(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("s3://" in said or "remote" in said) and "s3:/x" not in said


# ---- outputs


def outputs() -> list[tuple[str, str, Place]]:
    return [
        (name, option, place)
        for name in cli.command_names()
        for option, place in places.remote_places(cli.command(name)).items()
        if place.written_by_copy
    ]


@pytest.mark.parametrize(("name", "option", "place"), outputs())
def test_what_a_command_writes_appears_at_the_address(name: str, option: str, place: Place) -> None:
    """The command itself is replaced by one that writes a file to the path it is given."""
    real = cli.command(name)
    command = ModuleType("command")
    command.PLACES, command.Options = places.remote_places(real), real.Options  # type: ignore[attr-defined]

    def run(options: object) -> None:
        file = getattr(options, option)
        assert isinstance(file, Path) and not str(file).startswith("memory:") and file.parent.is_dir()
        (file if place is Place.FILE_OUT else file / "a").write_text("written")
        if place is Place.FILE_OUT:
            file.with_suffix(".bin").write_text("beside it")

    command.run = run  # type: ignore[attr-defined]
    required = {flag.name: () if flag.many else "" for flag in text_flags(name) if flag.default is flags.REQUIRED}
    run_command(command, real.Options(**{**required, option: Path("memory:/xray/made")}))
    at = "memory://xray/made" if place is Place.FILE_OUT else "memory://xray/made/a"
    assert objects.read_bytes(at) == b"written"
    assert place is not Place.FILE_OUT or objects.read_bytes("memory://xray/made.bin") == b"beside it"


# ---- inputs


INPUTS = {
    "blend": "{run} {run} --out out",
    "compare": "{run} {run}",
    "convert": "{run} --data {data} --out out",
    "curate": "{data} --features {run} --out out",
    "distil": "--data {data} --teacher {run} --init {run} --out out --epochs 1",
    "evaluate": "{run} --data {data}",
    "export": "{run} --data {data} --out out.onnx",
    "finetune": "--data {data} --init {run} --out out --epochs 1",
    "import": "nih {download} --out out --masks {none} --split-list train={none} --limit 1",
    "inspect": "{data} --split-list train={none}",
    "labels": "{run} --data {data}",
    "localise": "--data {data} --init {run} --out out --epochs 1",
    "predict": "{run} {download}",
    "pretrain": "simclr --model test_resnet --size 32 --batch 4 --data {data} --init {run} --probe {data} --out out",
    "probe": "{run} --data {data}",
    "profile": "{run}",
    "reshard": "{data} --out out",
    "run": "small-moco --data {data} --out out",
    "runs": "{run}",
    "serve": "{run} --port 0",
    "tune": "finetune --data {data} --space lr=1e-4..1e-2:log --out out --trials 1",
}
"""A command line of each command that reads files."""


def inputs() -> list[tuple[str, int]]:
    return [(name, at) for name, line in INPUTS.items() for at, word in enumerate(line.split()) if "{" in word]


@pytest.mark.parametrize(("name", "at"), inputs())
def test_an_input_that_is_not_at_the_address_is_named(
    name: str, at: int, nih_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = INPUTS[name].split()
    words[at] = words[at].partition("{")[0] + NONE
    files = {one: str(nih_run / one) for one in ("run", "data", "download")}
    assert cli.main([name, *(word.format(**files, none=NONE) for word in words)]) in (1, 2)
    assert has_facts(capsys.readouterr().err, NONE)
