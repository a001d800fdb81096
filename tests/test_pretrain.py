"""ribcage pretrain: every method trains, resumes, and leaves a backbone that other programs can load."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import timm
import torch
from ranks import TRANSFORMERS_ONLY
from refusals import has_facts, line
from safetensors.torch import load_file
from trainings import equal, stopped

from ribcage import cli, methods
from ribcage.bundle.init import initial_provenance
from ribcage.bundle.io import load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.commands import pretrain
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.training import checkpoint

CNN, VIT = "test_resnet", "test_vit"
NAMES = [name for name in methods.method_names() if methods.load_method(name).command == "pretrain"]
SMALL = {
    "crops": 2, "decoder": "dec128d2b", "dim": 8, "bn_group": 8, "hidden": 16, "patch": 8, "prototypes": 8, "queue": 40,
    "predictor_dim": 24, "predictor_depth": 1, "targets": 2,
}  # fmt: skip
"""What makes a method small where it has such an option."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "48"]) == 0
    assert cli.main([*words("mae", folder, folder.parent / "teacher"), "--epochs", "1"]) == 0
    return folder


def model(name: str) -> str:
    return VIT if name in TRANSFORMERS_ONLY else CNN


def own(name: str) -> list[str]:
    known = inspect.signature(methods.load_method(name).__init__).parameters
    return [
        word
        for option, value in SMALL.items()
        if option in known
        for word in (f"--{option.replace('_', '-')}", str(value))
    ]


def words(name: str, data: Path, out: Path, *more: str) -> list[str]:
    size = "64" if model(name) == VIT else "32"
    plain = ["pretrain", name, "--data", str(data), "--out", str(out), "--model", model(name), "--size", size]
    if methods.load_method(name).takes_teacher:
        plain += ["--teacher", str(data.parent / "teacher")]
    return [*plain, *own(name), "--batch", "16", "--epochs", "3", "--evaluate-every", "2", "--threads", "1", *more]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of every method."""
    folder = tmp_path_factory.mktemp("跑 runs")
    for name in NAMES:
        assert cli.main(words(name, data, folder / name)) == 0
    return {name: folder / name for name in NAMES}


def test_the_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(NAMES) == methods.pretraining()
    assert cli.main(["pretrain", "--help"]) == 0
    told = capsys.readouterr().out
    assert ", ".join(NAMES) in " ".join(told.split())
    for name in NAMES:
        assert cli.main(["pretrain", name, "--help"]) == 0
    assert "--queue" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_logs_a_checkpoint_images_and_a_backbone(runs: dict[str, Path], name: str) -> None:
    out = runs[name]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, lines[-1]["step"] + 1))
    looks = [line["validation"] for line in lines if "validation" in line]
    assert len(looks) == 2 and all(look["rank"] > 0 for look in looks)
    assert checkpoint.load_checkpoint(out / "checkpoint.pt")["run"]["step"] == lines[-1]["step"]
    facts = ModelSpec.load(out / "bundle" / "model.json")
    assert facts.findings == () and facts.training.method == name and facts.metrics["features"] == looks[-1]
    assert "pretrained" in (out / "bundle" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_backbone_is_a_plain_timm_model(runs: dict[str, Path], name: str) -> None:
    folder = runs[name] / "bundle"
    facts = ModelSpec.load(folder / "model.json")
    options = {"img_size": facts.size} | ({"global_pool": facts.pool} if facts.pool else {})
    options = options if name in TRANSFORMERS_ONLY else {}
    plain = timm.create_model(facts.name, in_chans=1, num_classes=0, **options).eval()
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    images = torch.randn(2, 1, *facts.size)
    ours = load_bundle(folder).method.backbone.eval()
    torch.testing.assert_close(plain(images), ours(images))


@pytest.mark.parametrize("name", NAMES)
def test_who_goes_on_with_it_has_its_weights_and_has_seen_what_it_saw(
    runs: dict[str, Path], name: str, data: Path, tmp_path: Path
) -> None:
    tune = ["finetune", "--data", str(data), "--model", model(name), "--init", str(runs[name]), "--labels", "0.3"]
    side = "64" if model(name) == VIT else "32"
    tune += ["--size", side, "--lr", "0", "--epochs", "1", "--batch", "8", "--threads", "1"]
    assert cli.main([*tune, "--out", str(tmp_path / "tuned"), "--adapt", "head"]) == 0
    before, after = (load_file(folder / "bundle" / "model.safetensors") for folder in (runs[name], tmp_path / "tuned"))
    assert all(torch.equal(after[key], value) for key, value in before.items())
    seen = {folder: initial_provenance(str(folder)) for folder in (runs[name], tmp_path / "tuned")}
    assert np.isin(seen[runs[name]].pixels, seen[tmp_path / "tuned"].pixels).all()
    assert np.isin(seen[runs[name]].patients, seen[tmp_path / "tuned"].patients).all()
    sources = ModelSpec.load(tmp_path / "tuned" / "bundle" / "model.json").data
    assert [bool(one.before) for one in sources] == [True, False]


def test_it_answers_no_findings(runs: dict[str, Path], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(runs["moco"]), "--data", str(data)]) == 2
    assert "ribcage finetune --init" in capsys.readouterr().err
    assert cli.main(["probe", str(runs["moco"]), "--data", str(data), "--labels", "1", "--threads", "1"]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_going_on_gives_the_same_bits_as_never_stopping(
    runs: dict[str, Path], name: str, data: Path, tmp_path: Path
) -> None:
    asked = words(name, data, tmp_path / "run")
    assert stopped(asked, tmp_path / "run", after=4) == 75
    begun = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"]["step"]
    whole = checkpoint.load_checkpoint(runs[name] / "checkpoint.pt")["run"]
    assert begun < whole["step"]
    assert cli.main([*asked, "--resume"]) == 0
    assert equal(checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"], whole)
    kept = [load_file(folder / "bundle" / "model.safetensors") for folder in (tmp_path / "run", runs[name])]
    assert equal(*kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moco", "mae"])
def test_two_processes_train_what_one_trains(name: str, data: Path, tmp_path: Path) -> None:
    asked = {run: words(name, data, tmp_path / run, "--precision", "float32", "--epochs", "1") for run in "12"}
    processes.together(processes.command, asked["1"], said=tmp_path / "said 1", world=1)
    processes.together(processes.command, asked["2"], said=tmp_path / "said 2")
    one, two = (load_file(tmp_path / run / "bundle" / "model.safetensors") for run in "12")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


def test_lines_as_moco_prints_them(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words("moco", data, tmp_path / "run", "--log-format", "moco", "--epochs", "1")) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch: [0][0/5]"))
    assert [part.split()[0] for part in line.split("\t")[1:]] == ["Time", "Data", "Loss", "Acc@1", "Acc@5"]


def test_the_labelled_set_is_probed_while_it_learns(data: Path, tmp_path: Path) -> None:
    assert cli.main(words("byol", data, tmp_path / "run", "--probe", str(data), "--epochs", "2")) == 0
    found = ModelSpec.load(tmp_path / "run" / "bundle" / "model.json").metrics["features"]
    assert 0 <= found["probe"] <= 1 and 0 <= found["knn"] <= 1


def test_other_splits_are_trained_on_only_when_asked_for(data: Path, tmp_path: Path) -> None:
    opened = dataset_folder.open(data)
    pixels = opened.fingerprints.pixels
    for splits in (["train"], ["train", "val"]):
        out = tmp_path / "-".join(splits)
        assert cli.main(words("supervised", data, out, "--epochs", "1", "--train", *splits)) == 0
        inside = opened.index.table["split"].isin(splits).to_numpy()
        assert set(initial_provenance(str(out)).pixels) <= set(pixels[inside])
        assert len(initial_provenance(str(out)).pixels) == inside.sum()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--data-weights", "0.5", "0.5"], "--data-weights has 2 numbers for 1"),
        (["--data-weights=-1"], "--data-weights"),
        (["--export-as", "mae"], "SupCon"),
        (["--evaluate-every", "0"], "--evaluate-every 0"),
        (["--temperature", "0"], "--temperature 0 "),
        (["--model", "resnet"], "Unknown model 'resnet'"),
        (["--train", "tran"], "Did you mean 'train'?"),
    ],
)
def test_what_cannot_be_is_one_line(
    data: Path, tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words("supcon", data, tmp_path / "run", *more)) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_findings_are_needed_where_they_are_learnt_from() -> None:
    options = pretrain.Options(method="supcon", data=("nothing",), out=Path("x"))

    with pytest.raises(ValueError, match=r"supcon .*\bnothing\b"):
        pretrain.describe(options, Datasets(()), np.arange(0))


def test_several_datasets_keep_their_own_scale_and_share(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert cli.main(["import", "phantom", "--out", str(other), "--images", "40", "--seed", "5", "--size", "32"]) == 0
    asked = words("byol", data, tmp_path / "run", "--data-weights", "0.5", "0.5", "--epochs", "1")
    asked[asked.index(str(data)) + 1 : asked.index(str(data)) + 1] = [str(other)]
    assert cli.main(asked) == 0
    facts = ModelSpec.load(tmp_path / "run" / "bundle" / "model.json")
    opened = Datasets.open([str(data), str(other)])
    assert facts.training.scales == tuple((one.mean, one.std) for one in opened)
    assert len(facts.data) == 2


def test_a_method_without_labels_takes_no_policy(data: Path, tmp_path: Path, capsys: Any) -> None:
    assert cli.main(words("moco", data, tmp_path / "run", "--policy", "ones")) == 2
    assert "--findings and --policy" in capsys.readouterr().err


def test_a_layout_can_be_asked_for_when_the_run_is_done(runs: dict[str, Path], data: Path) -> None:
    assert cli.main([*words("mae", data, runs["mae"]), "--resume", "--export-as", "mae"]) == 0
    file = next(runs["mae"].glob("*.pth"))
    assert "decoder_pred.weight" in torch.load(file, weights_only=True)["model"]


def test_a_loss_that_cannot_be_computed_in_parts_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    options = pretrain.Options(method="byol", data=("set",), out=Path("x"), batch=16, micro_batch=4)
    assert pretrain.wrong(options) == []
    monkeypatch.setattr(methods.load_method("byol"), "divisible", False)
    (fault,) = pretrain.wrong(options)
    assert has_facts(fault, "--micro-batch 4", "BYOL")
    assert pretrain.wrong(replace(options, devices=4)) == [], "one forward pass in each process"


def test_groups_that_do_not_fit_into_micro_batches_are_refused_before_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = line(words("moco", data, tmp_path / "run", "--micro-batch", "9"), capsys)
    assert has_facts(said, "--bn-group 8", "8 images", "--bn-group 4") and "--resume" not in said
    assert not (tmp_path / "run").exists()


def test_a_method_with_a_command_of_its_own_is_refused_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "distil", "--help"]) == 2
    told = capsys.readouterr().err
    assert "ribcage distil" in told and told.count("\n") == 1
