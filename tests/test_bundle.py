"""Bundles: complete or refused, the same predictions as the saved model, and no code is executed."""

import contextlib
import itertools
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from refusals import has_facts
from safetensors.torch import load_file, save_file

from ribcage.bundle import card, init
from ribcage.bundle.init import initial_backbone, initial_normalisation, initial_provenance, read_initial_weights
from ribcage.bundle.io import WEIGHTS_FILE, load_classifier, save_bundle
from ribcage.bundle.spec import DetectorSpec, ModelSpec
from ribcage.bundle.training_record import OptionChange, TeacherRecord, TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.imaging import fingerprint
from ribcage.methods.supervised import Supervised
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone
from ribcage.runtime import files

FINDINGS = ("Atelectasis", "Mass")
SIZES = {"test_resnet": (48, 32), "test_vit": (64, 48), "test_efficientnet": (64, 64), "resnet18_small": (32, 32)}
COUNTS = TrainingRecord(images=10, patients=7, selection=3)


def made(name: str = "test_resnet", seed: int = 0, **options: Any) -> tuple[Supervised, ModelSpec]:
    torch.manual_seed(seed)
    size = SIZES.get(name, (224, 224))
    backbone = Backbone(name, size=size, channels=options.get("channels", 1), pool=options.get("pool", ""))
    method = Supervised(backbone, FINDINGS).eval()
    with torch.no_grad():
        method.head.weight.normal_(std=0.3)
        method.head.bias.normal_()
        for key, value in method.backbone.named_buffers():
            if "running_mean" in key:
                value.normal_(std=0.1)
    model = ModelSpec(
        name, FINDINGS, size, 64, "pad", 0.48, 0.24, training=COUNTS, temperature=(1.5, 0.7),
        thresholds={"youden": (0.4, None)}, metrics={"validation": {"auroc": 0.7, "auroc_Mass": 0.7}},
        data=(TrainingData("phantom", "made up", "none"),), **options,
    )  # fmt: skip
    return method, model


def seen() -> Provenance:
    rng = np.random.default_rng(0)
    prints = rng.integers(0, 2**63, (4, fingerprint.VARIANTS, 4)).astype(np.uint64)
    numbers = np.arange(1, 5, dtype=np.uint64)
    return Provenance(numbers, numbers, prints, np.array([0, 0, 0, 1], np.uint8))


@pytest.mark.parametrize(
    ("kind", "mean", "refused"), [("shapes", 0.4, True), ("shapes", 0.5, False), ("names", 0.4, False)]
)
def test_initial_weights_are_ambiguous_where_shapes_alone_tell_of_two_preprocessings(
    monkeypatch: pytest.MonkeyPatch, kind: str, mean: float, refused: bool
) -> None:
    one = SimpleNamespace(layout="one", other_layouts=("two",), evidence=SimpleNamespace(kind=kind), mean=0.5, std=0.2)
    two = SimpleNamespace(layout="two", other_layouts=("one",), evidence=one.evidence, mean=mean, std=0.2)
    monkeypatch.setattr(init, "published", lambda file, layout=None: two if layout == "two" else one)
    if not refused:
        assert read_initial_weights(Path("x.pt")) is one
    else:
        with pytest.raises(ValueError, match=r"x\.pt .*\bone\b.*\btwo\b"):
            read_initial_weights(Path("x.pt"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "模型 run" / "bundle", *made(), seen())
    return tmp_path / "模型 run"


def test_the_same_model_is_the_same_weight_file(saved: Path, tmp_path: Path) -> None:
    first = (saved / "bundle" / WEIGHTS_FILE).read_bytes()
    for turn in range(4):
        save_bundle(tmp_path / str(turn), *made(), seen())
        assert (tmp_path / str(turn) / WEIGHTS_FILE).read_bytes() == first


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_opened_bundle_gives_the_answers_of_the_saved_model(name: str, channels: int, tmp_path: Path) -> None:
    method, model = made(name, channels=channels)
    save_bundle(tmp_path / "b", method, model, seen())
    opened = load_classifier(tmp_path / "b")
    images = torch.randn(2, channels, *model.size)
    with torch.inference_mode():
        assert torch.equal(opened.method.logits(images), method.logits(images))
    assert opened.spec == model and not opened.method.training
    assert all(np.array_equal(getattr(opened.provenance, key), value) for key, value in vars(seen()).items())


@pytest.mark.parametrize(
    ("name", "pool"),
    [("test_resnet", ""), ("test_vit", ""), ("test_vit", "avg"), ("resnet18_small", ""), ("deit_tiny_distilled_patch16_224", "")],
)  # fmt: skip
def test_the_cards_own_lines_load_the_weights_into_plain_timm(
    name: str, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, model = made(name, pool=pool)
    save_bundle(tmp_path, method, model, seen())
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1], names)
    images = torch.randn(2, 1, *model.size)
    with torch.inference_mode():
        torch.testing.assert_close(names["model"].eval()(images), method.logits(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "plain"), [("resnetv2_50", True), ("volo_d1_224", True), ("levit_128s", False)])
def test_heads_of_another_kind_give_the_same_answers_by_the_cards_lines(
    name: str, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 1 × 1 convolution, a second head that adds to the first, and one that is not a layer at all."""
    method, model = made(name)
    save_bundle(tmp_path, method, model, seen())
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None and ("timm.create_model" in code[1]) == plain
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1], names)
    opened, images = load_classifier(tmp_path).method, torch.randn(1, 1, *model.size)
    with torch.inference_mode():
        answers = method.logits(images)
        said = names["model"].eval()(images) if plain else names["model"].logits(images)
        torch.testing.assert_close(said, answers, rtol=1e-4, atol=1e-4)
        assert torch.equal(opened.logits(images), answers)


def test_a_file_of_weights_brings_what_is_known_of_them(saved: Path, tmp_path: Path) -> None:
    file = saved / "bundle" / "model.safetensors"
    model = made()[1]
    assert np.array_equal(initial_provenance(str(file)).pixels, seen().pixels) and initial_normalisation(str(file)) == (
        0.48,
        0.24,
    )
    built, trained = (initial_backbone(model, str(init), 0.0).model.state_dict() for init in (file, saved))
    assert all(torch.equal(value, trained[name]) for name, value in built.items())
    shutil.copy(file, saved / "exported.pth")  # beside the bundle
    assert np.array_equal(initial_provenance(str(saved / "exported.pth")).pixels, seen().pixels)
    shutil.copy(file, tmp_path / "alone.pth")
    assert not len(initial_provenance(str(tmp_path / "alone.pth")).pixels)


def test_the_card_has_what_a_person_must_know(saved: Path) -> None:
    text = (saved / "bundle" / "README.md").read_text(encoding="utf-8")
    for part in ("Research use only", "Atelectasis, Mass", "made up (licence: none)", "10 training images from 7 patients",
                 "resized to 48 × 32", "(x − 0.48) / 0.24", "| Mass | – | 0.700 |"):  # fmt: skip
        assert part in text


def test_the_card_names_teachers_and_those_of_unknown_training_data(tmp_path: Path) -> None:
    model, table = TeacherRecord("densenet121", False, ("Mass",)), TeacherRecord("答案.csv", True, ("Edema",))
    method, facts = made()
    for lessons, says in (((model,), False), ((model, table), True)):
        whose = seen() | Provenance.nothing(*["答案.csv"] * says)
        save_bundle(tmp_path, method, replace(facts, training=replace(COUNTS, teachers=lessons)), whose)
        text = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert "distilled from densenet121 (1 finding)" + ", the table 答案.csv (Edema)" * says + ".\n" in text
        assert has_facts(text, "training data", "答案.csv", "not known") == says
    assert "distilled" not in card.model_card(facts)


def test_the_card_says_that_weights_are_averages() -> None:
    _, facts = made()
    averaged = replace(facts, training=replace(COUNTS, options={"ema": 0.999}))
    assert has_facts(card.model_card(averaged), "moving average", "0.999")
    plain = replace(facts, training=replace(COUNTS, options={"ema": 0.0}))
    assert "moving average" not in card.model_card(plain)


def test_the_card_says_that_classes_were_drawn_equally_often() -> None:
    _, facts = made()
    for how in ("classes", "images"):
        text = card.model_card(replace(facts, training=replace(COUNTS, options={"sampling": how})))
        assert ("Class-aware sampling" in text) == (how == "classes")


def test_a_run_is_opened_by_its_bundle(saved: Path) -> None:
    assert load_classifier(saved).folder == saved / "bundle"
    assert (
        initial_normalisation(str(saved)) == (0.48, 0.24)
        and initial_normalisation("imagenet") is None
        and initial_normalisation("") is None
    )


# ---- what does not open


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_classifier(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        load_classifier(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(FileNotFoundError, match="first validation"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "provenance.npz", "model.json"])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not really", "half"])
def test_a_missing_torn_or_foreign_file_is_one_line(saved: Path, file: str, content: bytes | str | None) -> None:
    path = saved / "bundle" / file
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_classifier(saved)
    assert "\n" not in str(error.value) and str(saved) in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weights: weights.pop("fc.bias"), r"\b1\b.*\b0\b.*\b0\b.*fc\.bias"),
        (lambda weights: weights.update(extra=torch.zeros(1)), r"\b0\b.*\b1\b.*\b0\b.*extra"),
        (
            lambda weights: weights.update({"fc.weight": torch.zeros(3, 96)}),
            r"\b0\b.*\b0\b.*\b1\b.*fc\.weight",
        ),
    ],
)
def test_weights_that_are_not_exactly_the_models_are_refused(saved: Path, change: Any, says: str) -> None:
    file = saved / "bundle" / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    with pytest.raises(ValueError, match=says):
        load_classifier(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "another version"),
        ({"surprise": 1}, "another version"),
        ({"name": 5}, "damaged: name .*'5'"),
        ({"name": "densnet121"}, "Did you mean 'densenet121'"),
        ({"findings": []}, "damaged: temperature"),
        ({"findings": "Mass"}, "damaged: findings"),
        ({"size": [48]}, "damaged: size"),
        ({"size": [10**9, 10**9]}, "damaged: size"),
        ({"std": 0}, "damaged: std"),
        ({"mean": float("nan")}, "damaged: mean"),
        ({"findings": ["Mass", "Mass"]}, "damaged: findings"),
        ({"temperature": [0, 1]}, "damaged: temperature"),
        ({"temperature": [-1.0, 1]}, "damaged: temperature"),
        ({"thresholds": {"youden": [float("inf"), 0.5]}}, "damaged: thresholds"),
        ({"loss": []}, "damaged: loss"),
        ({"loss": "evil"}, "damaged: loss"),
        ({"temperature": [1.0]}, "damaged: temperature"),
        ({"thresholds": {"youden": [0.5]}}, "damaged: thresholds"),
        ({"thresholds": {"youden": ["x", "y"]}}, "damaged: thresholds"),
        ({"metrics": {"validation": [0.9]}}, "damaged: metrics"),
        ({"metrics": {"validation": {"auroc": "0.9"}}}, "damaged: metrics"),
        ({"data": [{"name": "nih"}]}, "damaged: data"),
        ({"detector": {"width": 16}}, "damaged: detector"),
        ({"detector": {"head": "fcos", "width": 10**9}}, "damaged: detector"),
        ({"training": {"images": -1}}, "damaged: training"),
        ({"training": {"teachers": [{"name": "nih"}]}}, "damaged: training"),
        ({"training": {"method": "converted", "layout": "moco"}}, "damaged: training"),
    ],
)
def test_facts_of_another_version_or_kind_are_refused(saved: Path, change: dict[str, Any], says: str) -> None:
    file = saved / "bundle" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=says) as error:
        load_classifier(saved)
    assert "\n" not in str(error.value)


def test_facts_that_lack_something_are_refused(saved: Path) -> None:
    file = saved / "bundle" / "model.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    del values["mean"]
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match="another version"):
        load_classifier(saved)


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.file),)


def test_code_in_a_bundle_is_not_run(saved: Path, tmp_path: Path) -> None:
    whole = (saved / "bundle" / "model.safetensors").read_bytes()
    torch.save({"fc.bias": Evil(tmp_path / "ran")}, saved / "bundle" / "model.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        load_classifier(saved)
    (saved / "bundle" / "model.safetensors").write_bytes(whole)
    patients = np.array([Evil(tmp_path / "ran")], object)
    np.savez(saved / "bundle" / "provenance.npz", **{**vars(seen()), "patients": patients})
    with pytest.raises(ValueError, match="is damaged"):
        load_classifier(saved)
    assert not (tmp_path / "ran").exists()


def test_what_a_model_has_seen_must_have_its_form(saved: Path) -> None:
    for change in (
        {"pixels": np.zeros(3, np.uint64)},
        {"prints": np.zeros((4, 2), np.uint64)},
        {"patients": np.zeros(2)},
    ):
        np.savez(saved / "bundle" / "provenance.npz", **{**vars(seen()), **change})
        with pytest.raises(ValueError, match=r"provenance\.npz"):
            load_classifier(saved)


# ---- saving


class Killed(BaseException):
    """Nothing is done from here on, as in a process that was killed."""


def killed_at(moment: int, patch: pytest.MonkeyPatch) -> None:
    """Whatever removes, renames or settles a file works so often, and then nothing does any more."""
    done = itertools.count(1)

    def until_then(act: Any) -> Any:
        def acted(*asked: Any, **how: Any) -> Any:
            if next(done) > moment:
                raise Killed
            return act(*asked, **how)

        return acted

    for owner, name in ((Path, "replace"), (Path, "unlink"), (files, "sync")):
        patch.setattr(owner, name, until_then(getattr(owner, name)))


def test_a_save_that_is_killed_leaves_the_old_bundle_the_new_one_or_none_that_opens(
    saved: Path, tmp_path: Path
) -> None:
    """At every moment of it; never the weights of one with the facts of another."""
    method, model = made(seed=1)
    model = replace(model, temperature=(9.0, 9.0))
    old, found = load_classifier(saved), dict[str, int]()
    for moment in itertools.count():
        folder = shutil.copytree(saved / "bundle", tmp_path / str(moment))
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            killed_at(moment, patch)
            save_bundle(folder, method, model, seen())
            found["done"] = moment
        try:
            opened = load_classifier(folder)
        except FileNotFoundError as error:
            assert str(folder) in str(error)
            found["none"] = moment
            continue
        which = {(1.5, 0.7): old.method, (9.0, 9.0): method}[opened.spec.temperature]
        assert torch.equal(opened.method.head.weight, which.head.weight)
        assert equal_states(opened.method, which)
        found["old" if which is old.method else "new"] = moment
        if "done" in found:
            break
    assert found["old"] < found["none"] < found["new"] == found["done"]


def equal_states(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_save_that_fails_keeps_the_old_bundle(saved: Path) -> None:
    method, model = made(seed=1)
    before = {file.name: file.read_bytes() for file in (saved / "bundle").iterdir()}
    (saved / "bundle" / "model.safetensors.part").mkdir()  # stands for a disk that cannot be written to
    with pytest.raises(OSError, match=r"model\.safetensors\.part"):
        save_bundle(saved / "bundle", method, model, seen())
    assert {name: (saved / "bundle" / name).read_bytes() for name in before} == before
    load_classifier(saved)


def test_a_save_over_another_is_the_new_one_whole(saved: Path) -> None:
    method, model = made(seed=1)
    save_bundle(saved / "bundle", method, replace(model, temperature=()), seen())
    opened = load_classifier(saved)
    assert torch.equal(opened.method.head.weight, method.head.weight) and opened.spec.temperature == ()
    assert sorted(file.name for file in (saved / "bundle").iterdir()) == sorted(
        ["README.md", "SHA256SUMS", "model.json", "model.safetensors", "provenance.npz"]
    )


# ---- going on from a bundle


def test_training_starts_from_a_bundle_of_another_size(tmp_path: Path) -> None:
    method, model = made("test_vit")
    save_bundle(tmp_path, method, model, seen())
    larger = replace(model, size=(96, 64), findings=("Mass",))
    built = initial_backbone(larger, str(tmp_path), 0.1)
    assert built.model.pos_embed.shape[1] == 6 * 4 + 1
    own = method.backbone.model
    assert torch.equal(built.model.blocks[1].mlp.fc1.weight, own.blocks[1].mlp.fc1.weight)
    corners = [(own.pos_embed[0, 1], built.model.pos_embed[0, 1])]
    assert all(torch.cosine_similarity(one, other, dim=0) > 0.5 for one, other in corners)
    same = initial_backbone(model, str(tmp_path), 0.0).eval()
    images = torch.randn(1, 1, 64, 48)
    with torch.inference_mode():
        assert torch.equal(same(images), method.backbone(images))


def test_another_architecture_is_not_filled_with_a_bundles_weights(saved: Path) -> None:
    _, model = made("test_vit")
    with pytest.raises(ValueError, match=r"test_resnet.*test_vit.*--model test_resnet"):
        initial_backbone(model, str(saved), 0.0)


def test_another_number_of_channels_is_one_line(saved: Path) -> None:
    _, model = made(channels=3)
    with pytest.raises(ValueError, match=r"\b1\b.*conv1\.0\.weight"):
        initial_backbone(model, str(saved), 0.0)


def test_what_is_known_of_the_training_is_written_and_read_again(tmp_path: Path) -> None:
    record = TrainingRecord(
        method="moco", images=4, selection=0, scales=((0.5, 0.2),), options={"epochs": 3, "size": [64]},
        history=(OptionChange(7, {"lr": 0.1}, {"lr": 0.01}),), teachers=(TeacherRecord("a", False, ("Mass",)),),
    )  # fmt: skip
    model = replace(made()[1], training=record, detector=DetectorSpec("fcos", {"width": 16, "keep": 9}))
    model.save(tmp_path / "model.json")
    assert ModelSpec.load(tmp_path / "model.json") == model and model.training.epochs == 3
    values = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert values["detector"] == {"head": "fcos", "width": 16, "keep": 9}
    assert set(values["training"]) == {"method", "images", "selection", "scales", "options", "history", "teachers"}


def test_an_undefined_validation_is_written_and_read(tmp_path: Path) -> None:
    method, model = made()
    save_bundle(tmp_path, method, replace(model, metrics={"validation": {"auroc": math.nan}}), seen())
    assert math.isnan(load_classifier(tmp_path).spec.metrics["validation"]["auroc"])
