"""Hyperparameters of each method as in its paper, scaled to any batch and to short runs; given options take precedence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import batch as images
from ranks import TRANSFORMERS_ONLY, patch_teacher

from ribcage import cli, methods
from ribcage.commands import finetune, localise, pretrain
from ribcage.methods.base import LabelCounts, Method
from ribcage.methods.moco import MoCo
from ribcage.methods.supcon import SupCon
from ribcage.methods.swav import SwAV
from ribcage.models.backbone import Backbone
from ribcage.runtime import limits
from ribcage.training import micro_batches, optim, options, setup

PRETRAIN = [name for name in methods.method_names() if methods.load_method(name).command == "pretrain"]
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # method: what is asked for, what follows. MAE, table 8: 1.5e-4 × 4096 / 256
    "mae": ({"batch": 4096}, {"optimizer": "adamw", "lr": 2.4e-3, "betas": (0.9, 0.95), "weight_decay": 0.05,
                              "warmup": 40, "epochs": 800, "min_lr": 0.0, "member": {}}),
    # configs/in1k_vith14_ep300.yaml: 1e-3 for 2048 images, ends at 1e-6
    "ijepa": ({"batch": 2048}, {"optimizer": "adamw", "lr": 1e-3, "min_lr": 1e-6, "weight_decay": "0.04:0.4",
                                "warmup": 40, "epochs": 300}),
    # EVA-02/asuka/README.md
    "eva": ({"batch": 4000}, {"optimizer": "adamw", "lr": 3e-3, "betas": (0.9, 0.98), "min_lr": 0.0, "weight_decay": 0.05,
                              "warmup": 1, "epochs": 240}),
    "mae_unet": ({"batch": 2048}, {"optimizer": "adamw", "lr": 1.2e-3, "betas": (0.9, 0.95), "warmup": 40, "epochs": 800}),
    # BYOL, section 3.3: 0.2 × 4096 / 256
    "byol": ({"batch": 4096}, {"optimizer": "lars", "lr": 3.2, "betas": (), "weight_decay": 1.5e-6, "warmup": 10,
                               "epochs": 1000, "member": {}}),
    # DINO, section 3.2: 5e-4 × 1024 / 256
    "dino": ({"batch": 1024}, {"optimizer": "adamw", "lr": 2e-3, "min_lr": 1e-6, "weight_decay": "0.04:0.4", "clip": 3.0,
                               "warmup": 10, "epochs": 100, "member": {}}),
    "dinov2": ({"batch": 1024}, {"optimizer": "adamw", "lr": 4e-3, "min_lr": 1e-6, "weight_decay": "0.04:0.4", "clip": 3.0,
                                 "warmup": 10, "epochs": 100, "member": {}}),
    "moco": ({"batch": 128}, {"optimizer": "sgd", "lr": 0.015, "weight_decay": 1e-4, "warmup": 0, "epochs": 200}),
    # CONFIG.md of moco-v3: 1.5e-4 × 4096 / 256
    "mocov3": ({"batch": 4096}, {"optimizer": "adamw", "lr": 2.4e-3, "min_lr": 0.0, "weight_decay": 0.1, "warmup": 40,
                                 "epochs": 300, "member": {}}),
    "supcon": ({"batch": 256}, {"optimizer": "sgd", "lr": 0.05, "min_lr": 5e-5, "weight_decay": 1e-4, "epochs": 1000}),
    "swav": ({"batch": 4096}, {"optimizer": "lars", "lr": 4.8, "min_lr": 0.0048, "weight_decay": 1e-6, "warmup": 10,
                               "epochs": 800, "member": {}}),
    "supervised": ({"batch": 256}, {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "epochs": 100}),
}  # fmt: skip


def asked(method: str, **more: Any) -> pretrain.Options:
    return pretrain.Options(method=method, data=("set",), out=more.pop("out", Path("run")), **more)


def settled(method: str, **more: Any) -> pretrain.Options:
    return pretrain.settled(asked(method, **more))


def of(options: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_method_is_trained_as_published(name: str) -> None:
    given, wanted = PUBLISHED[name]
    found = settled(name, **given)
    numbers = [key for key, value in wanted.items() if isinstance(value, int | float)]
    assert of(found, numbers) == pytest.approx(of_dict(wanted, numbers))
    assert of(found, wanted.keys() - numbers) == of_dict(wanted, wanted.keys() - numbers)
    assert limits.faults(found) == [] and methods.load_method(name).hyperparameters[0].source


def of_dict(values: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: values[name] for name in names}


@pytest.mark.parametrize(
    ("epochs", "lr", "decay", "momentum"),
    [(40, 0.45, 1e-6, 0.97), (100, 0.45, 1e-6, 0.99), (300, 0.3, 1e-6, 0.99), (999, 0.3, 1e-6, 0.99), (5, 0.45, 1e-6, 0.97)],
)  # fmt: skip
def test_byol_for_fewer_epochs_is_that_of_the_authors_presets(
    epochs: int, lr: float, decay: float, momentum: float
) -> None:
    found = settled("byol", epochs=epochs)
    assert (found.lr, found.weight_decay, found.member) == (lr, decay, {"momentum": momentum})
    assert settled("byol", epochs=epochs, member={"momentum": 0.5}).member == {"momentum": 0.5}


def test_swav_in_small_batches_is_that_of_its_small_batches() -> None:
    found = settled("swav")
    assert (found.lr, found.warmup, found.epochs, found.member) == (0.6, 0, 400, {"queue": 3840})
    assert settled("swav", member={"queue": 64}).member == {"queue": 64}


def test_what_is_asked_for_goes_before_what_is_published() -> None:
    given: dict[str, Any] = {
        "epochs": 7, "lr": 0.0, "min_lr": 0.0, "warmup": 0.0, "optimizer": "adamw", "betas": (0.5, 0.6),
        "weight_decay": 0.0,
    }  # fmt: skip
    assert of(settled("byol", **given), given) == given


@pytest.mark.parametrize(("optimizer", "lr", "decay"), [("lars", 0.3, 1e-6), ("sgd", 0.03, 1e-4)])
def test_another_optimizer_brings_its_own_rate_and_decay(optimizer: Any, lr: float, decay: float) -> None:
    found = settled("mae", optimizer=optimizer, epochs=100)
    assert (found.lr, found.weight_decay, found.betas, found.warmup) == (lr, decay, (), 10)
    tuned = options.with_defaults(finetune.Options(data=("set",), out=Path("run"), optimizer=optimizer))
    assert (tuned.lr, tuned.weight_decay, tuned.betas) == (lr * 64 / 256, decay, ())


def test_lars_adapts_matrices_without_decay_too() -> None:
    """The step is rate × .001 × |w| / |g| × g: one of a gradient a thousand times as large is as long."""
    lengths = []
    for size in (1.0, 1000.0):
        method = Method(Backbone("test_vit", size=(64, 64)))
        weight = method.backbone.model.blocks[0].mlp.fc1.weight
        torch.nn.init.ones_(weight)
        weight.grad = torch.full_like(weight, size)
        moved = optim.optimizer(method, "lars", weight_decay=0.0)
        optim.set_rate(moved, 0.5)
        moved.step()
        lengths.append((1 - weight.detach()).mean().item())
    assert lengths == pytest.approx([5e-4, 5e-4], rel=1e-3)


def test_other_commands_keep_their_defaults() -> None:
    tuned = options.with_defaults(finetune.Options(data=("set",), out=Path("run")))
    found = options.with_defaults(localise.Options(data=("set",), out=Path("run")))
    for one, lr, decay in ((tuned, 3e-4, 0.05), (found, 1e-3, 1e-4)):
        assert (one.optimizer, one.lr, one.weight_decay, one.betas) == ("adamw", lr, decay, (0.9, 0.999))
        assert (one.warmup, one.min_lr) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("warmup", "epochs", "steps", "rises"), [(5, 1, 10, 5), (1, 10, 4, 4), (0.5, 1, 10, 5), (3, 1, 1, 0)]
)
def test_the_rate_is_reached_however_short_the_run(
    warmup: float, epochs: int, steps: int, rises: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = finetune.Options(data=("set",), out=Path("run"), warmup=warmup, epochs=epochs)
    assert setup.warmup_steps(asked, steps) == rises
    rates = optim.Rates(0.1, epochs * steps, rises)
    assert max(rates.at(step) for step in range(epochs * steps)) == 0.1
    assert ("--warmup" in capsys.readouterr().out) == (warmup > epochs / 2)


def test_short_runs_rise_for_a_share_of_them() -> None:
    assert [settled("mae", epochs=epochs).warmup for epochs in (800, 400, 100, 10)] == [40, 40, 10, 1]


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    begun = {
        "epochs": 30,
        "lr": 0.7,
        "warmup": 2.0,
        "optimizer": "sgd",
        "betas": [],
        "weight_decay": 0,
        "momentum": 0.9,
    }
    (tmp_path / "options.json").write_text(json.dumps(begun), encoding="utf-8")
    found = settled("byol", out=tmp_path, resume=True, lr=0.1)
    wanted = {"epochs": 30, "lr": 0.1, "warmup": 2.0, "optimizer": "sgd", "betas": (), "weight_decay": 0}
    assert of(found, wanted) == wanted and found.member == {"momentum": 0.9}


def test_numbers_that_are_none_are_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(
        '{"lr": "x", "epochs": "3", "betas": ["a", 1], "optimizer": "adam"}', encoding="utf-8"
    )
    assert settled("moco", out=tmp_path, resume=True) == replace(settled("moco", out=tmp_path), resume=True)


def test_the_help_of_a_method_has_the_options_of_its_training(capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for name in ("mae", "swav"):
        assert cli.main(["pretrain", name, "--help-all"]) == 0
        said[name] = " ".join(capsys.readouterr().out.split())
    for part in ("0.00015 × batch / 256", "40, at most 10% of the run", "(default: 0.9 0.95)", "(default: 800)"):
        assert part in said["mae"] and part not in said["swav"]
    assert "(default: 3840)" in said["swav"] and "0.6 × batch / 256" in said["swav"]
    assert cli.main(["finetune", "--help"]) == 0
    assert "(default: 0.0003)" in capsys.readouterr().out


# ---- nothing to learn


SMALL = Backbone("test_resnet", size=(32, 32))


@pytest.mark.parametrize(
    ("method", "images", "batch", "says"),
    [
        (SupCon(SMALL, ("a",), dim=4), 100, 1, ["--batch 1"]),
        (SupCon(SMALL, ("a",), dim=4), 100, 2, []),
        (MoCo(SMALL, queue=101, dim=4), 100, 32, ["--queue 101"]),
        (MoCo(SMALL, queue=31, dim=4), 100, 32, ["--queue 31"]),
        (MoCo(SMALL, queue=100, dim=4), 100, 32, []),
        (SwAV(SMALL, prototypes=101, queue=200, hidden=4, dim=4, crops=0), 100, 1,
         ["--batch 1", "--queue 200", "--prototypes 101"]),
        (SwAV(SMALL, prototypes=90, queue=50, hidden=4, dim=4, crops=0), 100, 32, ["--prototypes 90"]),
        (SwAV(SMALL, prototypes=82, queue=50, hidden=4, dim=4, crops=0), 100, 32, []),
    ],
)  # fmt: skip
def test_options_that_would_train_nothing_are_named_at_once(
    method: Method, images: int, batch: int, says: list[str]
) -> None:
    found = method.faults(images, batch)
    assert len(found) == len(says) and all(part in text for part, text in zip(says, found, strict=True))


@pytest.mark.parametrize("name", PRETRAIN)
def test_batch_norms_of_single_images_are_refused(name: str) -> None:
    kind = methods.load_method(name)
    model = "test_vit" if name in TRANSFORMERS_ONLY else "test_resnet"
    more = {"teacher": patch_teacher((64, 64))} if kind.takes_teacher else {}
    method = kind(Backbone(model, size=(64, 64)), ("a",), **more)
    if name in TRANSFORMERS_ONLY:
        micro_batches.check_batch_norms(settled(name, batch=1), method, 1)
        return
    with pytest.raises(ValueError, match="--batch 1"):
        micro_batches.check_batch_norms(settled(name, batch=1), method, 1)
    micro_batches.check_batch_norms(settled(name, batch=2), method, 2)


def test_findings_that_are_the_same_in_all_images_contrast_nothing() -> None:
    method = SupCon(SMALL, ("a", "b"), dim=4)
    for labels in ([[1, 0], [1, torch.nan], [torch.nan, 0]], [[1, torch.nan], [torch.nan, torch.nan]]):
        with pytest.raises(ValueError, match=r"\ba, b\b"):
            method.count(LabelCounts.of([torch.tensor(labels)], 2))
    method.count(LabelCounts.of([torch.tensor([[1, 0], [1, 1]])], 2))
    method.count(LabelCounts.of([images(8, findings=2).labels], 2))


# ---- options that do not go together


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"min_lr": 0.1}, "--min-lr 0.1 is above --lr 0.0003"),
        ({"min_lr": 1e-5, "schedule": "step"}, "--min-lr"),
        ({"decay_at": (0.5,)}, "--decay-at needs --schedule step"),
        ({"betas": (0.9, 0.95), "optimizer": "sgd"}, "--betas needs --optimizer adamw"),
        ({"betas": (0.9, 1.0)}, "--betas 1 "),
        ({"adapt": "head", "layer_decay": 0.5}, "--layer-decay and --drop-path"),
        ({"adapt": "head", "drop_path": 0.5}, "--layer-decay and --drop-path"),
    ],
)
def test_options_without_effect_beside_others_are_refused(given: dict[str, Any], says: str) -> None:
    (fault,) = limits.faults(options.with_defaults(finetune.Options(data=("set",), out=Path("run"), **given)))
    assert says in fault


def test_epochs_below_one_are_the_only_fault() -> None:
    for epochs in (0, -3):
        (fault,) = limits.faults(options.with_defaults(finetune.Options(data=("set",), out=Path("run"), epochs=epochs)))
        assert fault.startswith(f"--epochs {epochs} ")


def test_commands_without_training_have_no_training_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words to other processes would be refused there."""
    seen: list[Any] = []
    monkeypatch.setattr(setup, "run_processes", lambda *given: seen.append(given[2]))
    localise.run(localise.Options(data=("set",), out=Path("run"), head="cam", init=str(tmp_path)))
    assert seen[0].lr is None and seen[0].optimizer is None


def test_the_help_names_the_values_of_shorter_runs() -> None:
    texts = pretrain.defaults("byol")
    assert texts["lr"] == "0.2{0}, 0.3{0} below 1000 epochs, 0.45{0} below 300 epochs".format(" × batch / 256")
    published = methods.load_method("byol").published
    rates = [published(epochs, 256).lr for epochs in (1, 50, 299, 300, 999, 1000)]
    assert rates == [0.45, 0.45, 0.45, 0.3, 0.3, 0.2]
    assert texts["weight_decay"] == "1.5e-06, 1e-06 below 1000 epochs"
    assert "below" not in pretrain.defaults("moco")["lr"]
