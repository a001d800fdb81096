"""Commands as Python functions: the same options as on the command line, paths as text, all faults named at once."""

import json
import shutil
from pathlib import Path

import pytest
import trees

import ribcage
from ribcage import api, cli
from ribcage.commands import finetune, inspect, probe
from ribcage.data import dataset_folder


def caught(monkeypatch: pytest.MonkeyPatch, module: object) -> list[object]:
    """Options that reach the command, which itself does not run."""
    found: list[object] = []
    monkeypatch.setattr(module, "run", found.append)
    return found


def test_every_command_is_a_function_with_its_help() -> None:
    for name in cli.command_names():
        function = getattr(ribcage, name if name != "import" else "import_")
        assert function.__doc__ == cli.command(name).__doc__
        assert function.__name__ in dir(ribcage)


def test_options_are_typed_like_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = caught(monkeypatch, finetune)
    ribcage.finetune(data="数据/a b", out="runs/x", size=[320, 256], decay_at=(0.5,), findings="Mass", lr=1)
    ribcage.finetune(data=[Path("a"), "b"], out=Path("runs/x"), size=64)
    assert found == [
        finetune.Options(
            data=("数据/a b",), out=Path("runs/x"), size=(320, 256), decay_at=(0.5,), findings=("Mass",), lr=1
        ),
        finetune.Options(data=("a", "b"), out=Path("runs/x"), size=(64,)),
    ]
    assert all(isinstance(side, int) for options in found for side in options.size)  # type: ignore[attr-defined]


def test_what_is_positional_there_is_positional_here(monkeypatch: pytest.MonkeyPatch) -> None:
    found = caught(monkeypatch, probe)
    ribcage.probe("runs/x", data="d", out="o", labels=[0.1, 1])
    assert found == [probe.Options("runs/x", ("d",), labels=(0.1, 1), out=Path("o"))]
    seen = caught(monkeypatch, inspect)
    ribcage.inspect(["a", "b"], html="page.html")
    assert seen == [inspect.Options(("a", "b"), html=Path("page.html"))]


def test_a_wrong_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"ribcage\.finetune\b.*'modle'.*'model'"):
        ribcage.finetune(data="d", out="o", modle="densenet121")


def test_too_many_arguments_a_wrong_choice_and_a_wrong_type_are_named() -> None:
    with pytest.raises(TypeError, match=r"probe\b.*\b1\b.*\b2\b"):
        ribcage.probe("runs/x", "d")
    with pytest.raises(ValueError, match=r"optimizer .*'adamw' or 'sgd' or 'lars'.*'adam'"):
        ribcage.finetune(data="d", out="o", optimizer="adam")
    with pytest.raises(ValueError, match=r"epochs .*\bint\b.*'3'"):
        ribcage.finetune(data="d", out="o", epochs="3")


def test_an_unknown_verb_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"ribcage .*'finetun'"):
        _ = ribcage.finetun
    assert "finetune" in api.function_names() and "import_" in api.function_names()


# ---- notebooks


def test_a_notebook_shows_images_and_pages(tmp_path: Path) -> None:
    """What a command gives back is drawn where it is the last line of a cell."""
    data = ribcage.import_("phantom", out=tmp_path / "data", images=30, size=32)
    framed = data._repr_html_()
    assert framed.startswith("<iframe srcdoc=") and framed.count("data:image/jpeg") == dataset_folder.SHOWN
    assert "<script" not in framed and "&lt;script" not in framed
    said = ribcage.inspect(tmp_path / "data")
    assert said["sets"][0]["images"] == 30 and json.loads(json.dumps(said)) == said
    assert "Sample images" in said._repr_html_() and said._repr_html_().count("&lt;html") == 1


def test_a_linked_folder_whose_files_have_gone_is_shown_without_them(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "own")
    data = ribcage.import_("folder", tmp_path / "own", out=tmp_path / "data", link=True, size=32)
    assert data._repr_html_().count("data:image/jpeg") == dataset_folder.SHOWN
    shutil.rmtree(tmp_path / "own")
    assert data._repr_html_().count("data:image/jpeg") == 0
