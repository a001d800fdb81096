"""The three recipes of a detector on a frozen backbone run by the commands on their top: alone, stopped, on two processes.

The download is small – DICOM and the table of boxes – and so are model and images; all else stands as published.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import processes
import pytest
import timm
import torch
import trees
from models import trained
from safetensors.torch import load_file
from test_recipes import RECIPES, commands_on_top
from trainings import equal, stopped

from ribcage import cli
from ribcage.bundle.io import load_detector
from ribcage.bundle.spec import DetectorSpec
from ribcage.data import dataset_folder
from ribcage.training import checkpoint

NAMES = ("imagenet", "ce", "supcon")
SMALL = (
    "--model=test_resnet",
    "--size=64",
    "--epochs=2",
    "--batch=4",
    "--labels=1",
    "--threads=1",
    "--precision=float32",
)


def recipe(name: str) -> Path:
    return RECIPES / f"rsna-frozen-{name}.toml"


def test_the_three_differ_in_their_initial_weights_alone() -> None:
    said = {name: tomllib.loads(recipe(name).read_text(encoding="utf-8")) for name in NAMES}
    assert said["imagenet"].pop("init") == "imagenet"
    assert said["imagenet"] == said["ce"] == said["supcon"]
    inits = [
        next(word for word in line if word.startswith("runs/"))
        for line in (commands_on_top(recipe(n))[1] for n in NAMES)
    ]
    assert inits == ["runs/rsna-imagenet", "runs/ce", "runs/supcon"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The download with the published lists of parts, and what it is imported to."""
    at = tmp_path_factory.mktemp("肺 rsna")
    trees.lovt(trees.rsna(at / "download"))
    assert cli.main(placed(commands_on_top(recipe("ce"))[0], at, "")) == 0
    assert {"train", "val", "test"} == set(dataset_folder.open(at / "data").index.table["split"])
    return at


def placed(words: list[str], folder: Path, run: str) -> list[str]:
    """A command of a recipe's top, with its places below the folder."""
    moved = {"/data/": "download", "data/": "data", "runs/rsna": f"runs/{run}"}
    return [next((str(folder / to) for start, to in moved.items() if word.startswith(start)), word) for word in words]


def first(name: str, folder: Path) -> str:
    """Small weights of the kind: a file as others publish it, a classifier's bundle, a pretrained backbone's."""
    data, at = folder / "data", folder / f"first-{name}"
    if name == "imagenet":
        torch.manual_seed(0)
        torch.save(timm.create_model("test_resnet", in_chans=3, num_classes=5).state_dict(), at)
    elif name == "ce":
        trained(at, dataset_folder.open(data), ("Lung_Opacity",), side=32)
    else:
        words = ["--model", "test_resnet", "--size", "32", "--epochs", "1", "--batch", "8", "--threads", "1"]
        assert cli.main(["pretrain", "supcon", "--data", str(data), "--out", str(at), *words]) == 0
    return str(at)


def localised(name: str, folder: Path, run: str, weights: str) -> list[str]:
    return [*placed(commands_on_top(recipe(name))[1], folder, run), *SMALL, "--init", weights]


def log(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_from_the_download_to_the_tested_detector(name: str, folder: Path) -> None:
    run = folder / "runs" / f"{name}-one"
    assert cli.main(localised(name, folder, run.name, first(name, folder))) == 0
    did_what_it_says(run, name)
    words = [*placed(commands_on_top(recipe(name))[2], folder, run.name), "--resamples=20"]
    assert cli.main(words) == 0
    [found] = (run / "evaluation").glob("*/metrics.json")
    assert json.loads(found.read_text(encoding="utf-8"))["leak"]["found"] is False
    assert cli.main([*words, "--split=train"]) == 2


@pytest.mark.integration
def test_a_recipe_goes_on_and_is_shared_among_processes(folder: Path) -> None:
    """Of one recipe: the three differ in the weights they begin with."""
    name, runs = NAMES[0], folder / "runs"
    weights = first(name, folder)
    asked = {run: localised(name, folder, f"{name}-{run}", weights) for run in ("whole", "stopped", "two")}
    assert cli.main(asked["whole"]) == 0
    assert stopped(asked["stopped"], runs / f"{name}-stopped", after=2) == 75
    assert cli.main([*asked["stopped"], "--resume"]) == 0
    both = [runs / f"{name}-{run}" for run in ("whole", "stopped")]
    assert equal(*(checkpoint.load_checkpoint(run / "checkpoint.pt")["run"] for run in both))
    assert equal(*(load_file(run / "bundle" / "model.safetensors") for run in both))
    processes.together(processes.command, asked["two"], said=folder / "said")
    losses = [log(run) for run in (both[0], runs / f"{name}-two")]  # after the first, Adam makes much of rounding
    assert len(losses[0]) == len(losses[1]) == 6 and losses[1][0] == pytest.approx(losses[0][0], rel=1e-4)


def did_what_it_says(run: Path, name: str) -> None:
    small = {word.partition("=")[0].removeprefix("--") for word in SMALL} | {"init"}
    says: dict[str, Any] = tomllib.loads(recipe(name).read_text(encoding="utf-8"))
    did = json.loads((run / "options.json").read_text(encoding="utf-8"))
    kept = {option: value for option, value in says.items() if option not in small}
    assert kept and {option: did[option] for option in kept} == kept
    opened = load_detector(run)
    assert opened.spec.detector == DetectorSpec("yolo", {"anchors": "published", "overlap": 0.4, "keep": 100})
    assert opened.spec.training.images == 12 and opened.spec.training.selection == 4
