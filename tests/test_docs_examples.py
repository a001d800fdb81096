"""The example files of docs/extending.md work: put into their folders they are found and run. The names of Ribcage in
every Python example of the docs exist."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from test_definitions import assert_keeps_the_contract
from trees import images, text

import ribcage
from ribcage import cli, methods, metrics
from ribcage.bundle import formats
from ribcage.bundle.io import load_bundle
from ribcage.data import dataset_folder, datasets
from ribcage.metrics import definitions
from ribcage.models import architectures
from ribcage.models.backbone import Backbone
from ribcage.training import trackers
from ribcage.training.metrics_log import TrackedNumbers
from ribcage.training.trackers.base import TrackedRun

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
FOLDERS = {"datasets": datasets, "methods": methods, "formats": formats, "definitions": definitions,
           "architectures": architectures, "trackers": trackers}  # fmt: skip


def files() -> dict[str, str]:
    """Every file of the page, by its path."""
    return dict(
        re.findall(r"^`(ribcage/\S+\.py)`:\n\n```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    )


def command(name: str) -> list[str]:
    """The words of the page's line with this file's name."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("    ribcage ") and name in line).split()[1:]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, while the page's files lie in a second folder of each kind."""
    known = set(sys.modules)
    for path, code in files().items():
        kind = Path(path).parent.name
        text(tmp_path / "more" / kind / Path(path).name, code)
        monkeypatch.setattr(FOLDERS[kind], "__path__", [*FOLDERS[kind].__path__, str(tmp_path / "more" / kind)])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith(tuple(f"{folder.__name__}." for folder in FOLDERS.values())):
            del sys.modules[name]


def python_examples() -> Iterator[tuple[str, str]]:
    """Every Python example of the README and of the pages, with the name of its page."""
    for page in (PAGE.parent.parent / "README.md", *sorted(PAGE.parent.rglob("*.md"))):
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
            yield page.name, code


def unknown_names(code: str) -> list[str]:
    """The names of Ribcage that an example uses and that do not exist."""
    nodes = list(ast.walk(ast.parse(code)))
    known: dict[str, object] = {"ribcage": ribcage}
    unknown = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "ribcage":
            for one in node.names:
                try:
                    found: dict[str, object] = {}
                    exec(f"from {node.module} import {one.name}", found)
                    known[one.asname or one.name] = found[one.name]
                except ImportError:
                    unknown.append(f"{node.module}.{one.name}")
    used = [(node.value.id, node.attr) for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]  # fmt: skip
    return unknown + [f"{name}.{attr}" for name, attr in used if name in known and not hasattr(known[name], attr)]


def test_names_in_python_examples_exist() -> None:
    examples = list(python_examples())
    assert {"README.md", "evaluation.md"} <= {page for page, _ in examples}
    assert [(page, name) for page, code in examples for name in unknown_names(code)] == []


def test_each_kind_is_shown() -> None:
    assert sorted(Path(path).parent.name for path in files()) == sorted(FOLDERS)


def test_a_dataset_is_one_file(work: Path, capsys: pytest.CaptureFixture) -> None:
    names = [f"{number}.png" for number in range(12)]
    read = ("yes,no", "perhaps,", "no,yes")
    rows = [f"{name},P{place},{('PA', 'AP')[place % 2]},{read[place % 3]}" for place, name in enumerate(names)]
    text(work / "院 harbour" / "readings.csv", "file,patient,projection,Effusion,Mass", *rows)
    images(work / "院 harbour", names)
    words = [word.replace("/data/harbour", str(work / "院 harbour")) for word in command("import harbour")]
    assert cli.main(words) == 0
    table = dataset_folder.open(work / "data" / "harbour").index.table
    assert (table["view"] == "PA").all() and len(table) == 6
    assert sorted(table["Effusion"].unique()) == [-1, 0, 1] and table["Mass"].isna().sum() == 2
    pd.testing.assert_frame_equal(datasets.index("harbour", work, view="PA").table[["path"]], table[["path"]])
    assert cli.main(["import", "harbour", "--help"]) == 0 and "--view" in capsys.readouterr().out
    assert "Harbour clinic" in datasets.dataset_table()
    with pytest.raises(FileNotFoundError, match="readings"):
        datasets.index("harbour", work / "more" / "methods")


def test_a_metric_is_one_file(work: Path) -> None:
    assert "balanced_accuracy" in definitions.metric_names()
    assert_keeps_the_contract("balanced_accuracy")
    labels, scores = np.array([1.0, 1, 0, 0, 0]), np.array([0.9, 0.2, 0.8, 0.1, 0.3])
    found = metrics.summarise(scores, labels, thresholds=0.5, resamples=20).metrics["balanced_accuracy"]
    assert found.macro.value == pytest.approx((1 / 2 + 2 / 3) / 2) and found.macro.low < found.macro.value


def test_an_architecture_is_one_file(work: Path) -> None:
    importlib.import_module("ribcage.models.architectures.pebble")
    known = Backbone("pebble", size=(64, 64))
    assert known.dim == 128 and known.maps(torch.zeros(1, 1, 64, 64)).shape == (1, 128, 2, 2)
    name = command("--model pebble")[command("--model pebble").index("--model") + 1]
    assert timm.is_model(name)


def test_a_tracker_is_one_file(work: Path) -> None:
    name = command("csv_table")[-1]
    trackers.check_trackers([name])
    tracker = trackers.load_tracker(name)(TrackedRun("0123", "moco", work, {}))
    tracker.log([TrackedNumbers(3, {"train/loss": 0.5, "train/lr": 0.1}, 0.0)])
    tracker.show("neighbours", [], 3)
    tracker.close("finished")
    assert (work / "numbers.csv").read_text().split() == ["3,train/loss,0.5", "3,train/lr,0.1"]


def test_a_method_is_one_file(work: Path) -> None:
    assert cli.main(["import", "phantom", "--out", "data/phantom", "--images", "40", "--size", "32"]) == 0
    small = ["--dim", "32", "--epochs", "1", "--batch", "8", "--size", "32", "--threads", "1"]
    words = [word.replace("resnet18", "test_resnet") for word in command("pretrain simsiam")]
    assert cli.main([*words, *small]) == 0
    assert load_bundle(work / "runs" / "simsiam").spec.findings == ()
    kind = methods.load_method("simsiam")
    distance = sys.modules[kind.__module__].distance
    p, z = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]], requires_grad=True)
    torch.testing.assert_close(distance(p, z), torch.tensor(-0.6))
    assert not distance(p, z).requires_grad


def test_a_layout_of_weights_is_one_file(work: Path, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    state = timm.create_model("resnet18", num_classes=2).state_dict()
    names = {name: "findings." + name[3:] if name.startswith("fc.") else f"encoder.{name}" for name in state}
    torch.save({names[name]: value for name, value in state.items()}, "harbour.pt")
    assert cli.main(command("convert harbour.pt")) == 0
    out = capsys.readouterr().out
    assert "harbour_net (https://example.org/harbour; licence: CC0-1.0); resnet18" in out and "Effusion, Mass" in out
    assert load_bundle(work / "models" / "harbour").spec.findings == ("Effusion", "Mass")
