"""Ensembles: the mean of the members' calibrated logits as one classifier, wherever a classifier is expected."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from dataset_folders import make_store
from refusals import has_facts, line
from servers import cloud, png, running
from test_blend import FINDINGS, member, model, opened
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.bundle import blend, cost
from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import Classifier, load_classifier, save_bundle
from ribcage.bundle.onnx_export import Network
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import BlendRecord
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import IGNORE
from ribcage.data.provenance import Provenance
from ribcage.evaluation.classifier_validation import ClassifierValidation
from ribcage.inference import gradcam
from ribcage.inference.feature_evidence import pooled_evidence
from ribcage.inference.predictions import predict
from ribcage.inference.sanity import untrained
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training.blending import BlendImages, Blends
from ribcage.training.teachers.live import LiveTeacher

SIDE = 64


def classifier(name: str, seed: int, **options: Any) -> Classifier:
    """A classifier with features that differ between images."""
    torch.manual_seed(seed)
    loss = options.get("loss", "bce")
    method = Supervised(Backbone(name, size=(SIDE, SIDE), pool=options.get("pool", "")), FINDINGS, loss=loss).eval()
    torch.nn.init.normal_(method.head.weight)
    torch.nn.init.normal_(method.head.bias)
    spec = replace(model()[1], name=name, size=(SIDE, SIDE), **options)
    return Classifier(Path(f"{name}-{seed}"), spec, method, Provenance.nothing())


def ensemble(members: list[Classifier], folder: Path) -> Classifier:
    """The bundle of an ensemble, saved and opened."""
    record = BlendRecord("predictions", False, ())
    spec = blend.blend_spec(members, record, Provenance.nothing(), {}, "ignore")
    save_bundle(folder, blend.mean_predictions(members), spec, Provenance.nothing())
    return load_classifier(folder)


MEMBERS = {
    "two seeds": [("test_resnet", {}), ("test_resnet", {"temperature": (0.5, 3.0)})],
    "architectures": [("test_resnet", {}), ("test_vit", {"pool": "avg", "temperature": ()}), ("test_resnet", {})],
    "normalisation": [("test_resnet", {}), ("test_resnet", {"mean": 0.4, "std": 0.2})],
    "exclusive": [("test_resnet", {"loss": "cross-entropy"}), ("test_vit", {"loss": "cross-entropy"})],
}


def made(kind: str) -> list[Classifier]:
    return [classifier(name, seed, **options) for seed, (name, options) in enumerate(MEMBERS[kind])]


@pytest.mark.parametrize("kind", MEMBERS)
def test_the_logits_are_the_mean_of_the_calibrated_logits(kind: str, tmp_path: Path) -> None:
    members = made(kind)
    found = ensemble(members, tmp_path)
    pixels = torch.rand(3, 1, SIDE, SIDE)
    wanted = []
    with torch.inference_mode():
        for one in members:
            logits = one.method.logits((pixels - one.spec.mean) / one.spec.std)
            wanted.append(logits / torch.tensor(one.spec.temperature or (1.0, 1.0)))
        images = (pixels - found.spec.mean) / found.spec.std
        expected = torch.stack(wanted).mean(0)
        torch.testing.assert_close(found.method.logits(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(Network(found.method)(images), expected, rtol=1e-4, atol=1e-5)
    assert found.spec.temperature == () and found.method.exclusive == (kind == "exclusive")
    assert [one.name for one in found.spec.members] == [one.spec.name for one in members]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "load_bundle" in card and found.spec.name in card


def test_a_saved_ensemble_opens_as_it_was(tmp_path: Path) -> None:
    first = ensemble(made("architectures"), tmp_path / "a")
    save_bundle(tmp_path / "b", first.method, first.spec, first.provenance)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1] and load_classifier(tmp_path / "b").spec == first.spec


# ---- from outside


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": [{"name": "test_resnet", "pool": "nonsense"}]},
        {"members": [{"name": 3, "pool": ""}]},
        {"members": [{"name": "test_resnet", "pool": "", "normalisation": [[0.5, 0.5], [0.2, 0.2]]}]},
        {"members": [{"name": "test_resnet", "pool": "", "normalisation": [[0.5], [0.0]]}]},
        {"members": [{"name": "test_resnet", "pool": ""}] * 65},
        {"members": {}},
        {"detector": {"head": "cam"}},
    ],
)
def test_members_from_outside_are_checked(wrong: dict[str, Any], tmp_path: Path) -> None:
    ensemble(made("two seeds"), tmp_path)
    file = tmp_path / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | wrong), encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.json is damaged: members") as error:
        ModelSpec.load(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [["vit_giant_patch14_reg4_dinov2"] * 64, ["test_resnet", "no_such_model"]])
def test_a_giant_ensemble_is_refused_before_it_is_built(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble(made("two seeds"), tmp_path)
    file = tmp_path / "model.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values |= {"members": [{"name": name, "pool": ""} for name in names], "size": [518, 518]}
    file.write_text(json.dumps(values), encoding="utf-8")
    built: list[torch.device] = []
    create = Backbone.__init__

    def noted(one: Backbone, *names: Any, **options: Any) -> None:
        create(one, *names, **options)
        built.append(next(one.parameters()).device)

    monkeypatch.setattr(Backbone, "__init__", noted)
    with pytest.raises(ValueError, match=r".+"):
        load_classifier(tmp_path)
    assert [one.type for one in built] in (["meta"], [])


def test_a_bundle_from_before_there_were_ensembles_opens(tmp_path: Path) -> None:
    folder = member(tmp_path / "a", 0)
    values = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert values.pop("members") == []
    (folder / "model.json").write_text(json.dumps(values), encoding="utf-8")
    assert ModelSpec.load(folder / "model.json").members == ()


def test_what_an_ensemble_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ensemble(made("two seeds"), tmp_path / "e").folder
    other = member(tmp_path / "one", 5)
    out = ["--out", str(tmp_path / "out")]
    assert has_facts(line(["blend", str(folder), str(other), "--mean", "predictions", *out], capsys), folder)
    assert has_facts(line(["convert", str(folder), "--to", "torchvision", *out], capsys), folder)
    with pytest.raises(ValueError, match=r"ensemble"):
        initial_backbone(model()[1], str(folder), 0.0)
    for name, wrong in {"findings": ("Mass", "Edema"), "size": (32, 64), "stored": 48, "channels": 3}.items():
        with pytest.raises(ValueError, match=r"predictions"):
            blend.refuse_different(opened(model()[1]), opened(replace(model()[1], **{name: wrong})), "predictions")
    blend.refuse_different(opened(model()[1]), opened(replace(model()[1], name="test_vit", mean=0.1)), "predictions")


# ---- where a classifier is expected


def test_the_evidence_of_all_members_adds_up_to_the_logits(tmp_path: Path) -> None:
    """The heads are linear in mean features: sums of features times gradients are the logits without their bias."""
    found = ensemble(made("two seeds"), tmp_path)
    images = torch.randn(2, 1, SIDE, SIDE)
    evidence = pooled_evidence(found.method, images)
    assert evidence is not None
    total = (evidence.features * evidence.gradients).sum((2, 3, 4)).T
    torch.testing.assert_close(total, evidence.logits - found.method.head.bias.detach(), rtol=1e-4, atol=1e-4)


def test_maps_of_different_grids_are_on_the_finest(tmp_path: Path) -> None:
    found = ensemble(made("architectures"), tmp_path)
    images = torch.randn(2, 1, SIDE, SIDE)
    grids = [one.maps(images).shape[2:] for one in found.method.backbone.backbones]  # type: ignore[operator,union-attr]
    maps = gradcam.saliency_maps(found.method, images).maps
    assert maps.shape == (2, len(FINDINGS), *max(grids)) and len(set(grids)) == 2
    assert maps.isfinite().all() and (maps > 0).any()
    hidden = found.method.backbone.hidden(images)
    joined = found.method.backbone.grid(hidden, (SIDE, SIDE))
    first = found.method.backbone.backbones[0].maps(images)  # type: ignore[operator,union-attr]
    wanted = F.interpolate(first, max(grids), mode="bilinear") if first.shape[2:] != max(grids) else first
    torch.testing.assert_close(joined[:, : first.shape[1]], wanted)
    with pytest.raises(ValueError, match=r"--map-method occlusion"):
        gradcam.saliency_maps(found.method, images, gradcam.MapMethod("layercam", 1))


def test_a_server_predicts_and_has_no_map_where_a_member_pools_by_a_token(tmp_path: Path) -> None:
    found = ensemble([classifier("test_resnet", 0), classifier("test_vit", 1)], tmp_path)
    with running({"both": tmp_path}) as server:
        sent = png(cloud(SIDE, SIDE))
        [result] = server.post("/v1/predict", sent).json()["results"]
        assert [one["name"] for one in result["findings"]] == list(found.spec.findings)
        response = server.post(f"/v1/explain?finding={FINDINGS[0]}", sent)
    assert response.status_code == 404 and "Grad-CAM" in response.json()["error"]


def test_the_cost_is_that_of_all_members(tmp_path: Path) -> None:
    ensemble(made("two seeds"), tmp_path)
    found = cost.count_operations(cost.Subject.of(tmp_path))
    one = cost.count_operations(cost.Subject("test_resnet", len(FINDINGS), 1, (SIDE, SIDE)))
    assert abs(found.multiply_adds - 2 * one.multiply_adds) <= 2 * len(FINDINGS)
    assert found.parameters == 2 * one.parameters - len(FINDINGS)  # one bias


def test_random_weights_of_the_same_ensemble_can_be_made(tmp_path: Path) -> None:
    found = ensemble(made("architectures"), tmp_path)
    random, trained = untrained(found.spec).state_dict(), found.method.backbone.state_dict()
    assert {name: value.shape for name, value in random.items()} == {
        name: value.shape for name, value in trained.items()
    }


def test_a_teacher_may_be_an_ensemble(tmp_path: Path) -> None:
    found = ensemble(made("architectures"), tmp_path)
    scale = (found.spec.mean, found.spec.std)
    teacher = LiveTeacher(found, FINDINGS, torch.ones(2), view=0, scale=scale, device=torch.device("cpu"))
    views = batch(2, sides=(SIDE,)).views
    given = teacher(batch(2, sides=(SIDE,)), views, True)
    with torch.inference_mode():
        torch.testing.assert_close(given.logits, found.method.logits(views[0]), rtol=1e-4, atol=1e-4)
    assert given.features is not None and given.features.shape == (2, found.method.backbone.dim)
    assert given.maps is not None and given.maps.shape[:2] == (2, given.features.shape[1])


def test_members_are_validated_with_their_own_normalisation(tmp_path: Path) -> None:
    sets = Datasets.of([make_store(tmp_path, size=32, findings=FINDINGS)])
    members = [replace(one, spec=replace(one.spec, stored=32)) for one in made("normalisation")]
    rows = sets.rows_of("val")
    images = BlendImages(sets, rows[:0], rows, IGNORE, torch.device("cpu"), 16, 1)
    blends = Blends(members, "predictions", images)
    for place, one in enumerate(members):
        alone = ClassifierValidation(
            lambda one=one: one.method, sets, rows, one.spec, device=torch.device("cpu"), batch=16, threads=1
        )
        assert blends.auroc([place]) == alone()["auroc"]
    first, second = (predict(one.method, sets, rows, model=one.spec, threads=1).logits for one in members)
    blends.auroc([1, 0])
    wanted = (first + second) / 2 / np.array(members[0].spec.temperature)
    np.testing.assert_allclose(blends.validation.logits, wanted, rtol=1e-4, atol=1e-4)
