"""ribcage blend: the mean of the weights, its batch norm statistics, its selection on validation, and what it was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import has_facts, line

from ribcage import cli
from ribcage.bundle import blend
from ribcage.bundle.io import Classifier, load_classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import BlendRecord, MemberRecord, TrainingRecord, read_training_record
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.evaluation import leakage
from ribcage.imaging.augment import plain_view, strong_view
from ribcage.methods.supervised import Supervised
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone
from ribcage.runtime import typed_json
from ribcage.training.batch_statistics import (
    UNKNOWN,
    Augmentation,
    StatisticsImages,
    common_augmentation,
    recompute_statistics,
)
from ribcage.training.blending import Candidate, greedy_selection

FINDINGS = ("Infiltration", "Effusion")
SIZES = {"test_resnet": (32, 32), "test_vit": (64, 64)}
NOBODY = Provenance.nothing()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


def model(name: str = "test_resnet", seed: int = 0, **options: Any) -> tuple[Supervised, ModelSpec]:
    """A model whose weights differ a little from those of the same name with another seed."""
    torch.manual_seed(0)
    method = Supervised(Backbone(name, size=SIZES[name]), FINDINGS).eval()
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for value in method.parameters():
            value += 0.02 * torch.randn_like(value)
        for name_of, value in method.named_buffers():
            if name_of.endswith("running_var"):
                value += 5 * torch.rand_like(value)
    augmented = {"augment": "strong", "augment_options": ["rotation=0", "noise=0.1"]}
    facts = TrainingRecord(images=10, patients=9, selection=3, options={"frontal": False, **augmented})
    spec = ModelSpec(
        name, FINDINGS, SIZES[name], 32, "pad", 0.5, 0.25, temperature=(1.5, 0.7), training=facts,
        data=(TrainingData("phantom", "made up", "none"),), **options,
    )  # fmt: skip
    return method, spec


def member(folder: Path, seed: int, seen: Provenance = NOBODY, name: str = "test_resnet") -> Path:
    save_bundle(folder, *model(name, seed), seen)
    return folder


def opened(spec: ModelSpec, folder: str = "a") -> Classifier:
    return Classifier(Path(folder), spec, model()[0], NOBODY)


def rows_of(data: Path, split: str) -> tuple[Datasets, np.ndarray]:
    found = Datasets.open([data])
    return found, found.rows_of(split)


# ---- the mean


@pytest.mark.parametrize("name", SIZES)
def test_each_weight_is_the_mean_and_what_is_counted_is_kept(name: str) -> None:
    members = [model(name, seed)[0] for seed in range(3)]
    found = blend.mean_weights(members).state_dict()
    assert set(found) == set(members[0].state_dict())
    for key, value in found.items():
        every = np.stack([one.state_dict()[key].numpy() for one in members])
        wanted = every.astype(np.float64).mean(0).astype(every.dtype) if every.dtype.kind == "f" else every[0]
        np.testing.assert_array_equal(value.numpy(), wanted)
        assert value.dtype == members[0].state_dict()[key].dtype


@pytest.mark.parametrize(
    ("other", "fact"),
    [
        ({"name": "test_vit"}, "test_vit"),
        ({"findings": ("Effusion", "Infiltration")}, "Effusion, Infiltration"),
        ({"size": (32, 64)}, "32, 64"),
        ({"stored": 48}, "48"),
        ({"fit": "crop"}, "crop"),
        ({"channels": 3}, "3"),
        ({"mean": 0.4}, "0.4"),
        ({"std": 0.3}, "0.3"),
        ({"channels": 3, "rgb_normalisation": ((0.1,) * 3, (0.2,) * 3)}, "3"),
        ({"pool": "max"}, "max"),
        ({"loss": "cross-entropy"}, "not mutually exclusive"),
    ],
)  # fmt: skip
def test_models_that_differ_in_more_than_their_training_are_refused(other: dict[str, Any], fact: str) -> None:
    spec = model()[1]
    with pytest.raises(ValueError, match=r"cannot be averaged") as error:
        blend.refuse_different(opened(spec, "a"), opened(replace(spec, **other), "b"), "weights")
    assert has_facts(str(error.value), "a", "b", fact) and "\n" not in str(error.value)
    blend.refuse_different(opened(spec), opened(replace(spec, loss="focal", temperature=())), "weights")


def test_a_model_alone_or_twice_is_no_blend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = member(tmp_path / "one", 0, name="test_vit")
    same = member(tmp_path / "same", 0, name="test_vit")
    out = ["--out", str(tmp_path / "out")]
    assert has_facts(line(["blend", str(one), *out], capsys), 2, 1)
    for twice in (one, same):
        assert has_facts(line(["blend", str(one), str(twice), *out], capsys), one, twice)
    assert has_facts(line(["blend", str(one), str(same), "--greedy", *out], capsys), "--greedy", "--data")
    assert has_facts(line(["blend", str(one), str(same), "--out", str(one)], capsys), "--out", one)


def test_statistics_that_cannot_be_averaged_need_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["blend", *(str(member(tmp_path / str(seed), seed)) for seed in (0, 1)), "--out", str(tmp_path / "out")]
    assert has_facts(line(words, capsys), "test_resnet", "--data")
    assert not (tmp_path / "out").exists()


def test_a_blend_without_data_has_no_calibration_and_its_card_names_the_members(tmp_path: Path) -> None:
    folders = [member(tmp_path / f"run {seed}" / "bundle", seed, name="test_vit") for seed in (0, 1)]
    words = ["blend", *(str(one.parent) for one in folders), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    found = load_classifier(tmp_path / "out")
    assert found.spec.temperature == () and not found.spec.thresholds and not found.spec.metrics
    record = found.spec.training.blend
    assert record and [one.folder for one in record.members] == ["run 0", "run 1"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for one, folder in zip(record.members, folders, strict=True):
        assert one.sha256 == blend.weights_digest(load_classifier(folder)) and one.sha256[:16] in card
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        wanted = blend.mean_weights([model("test_vit", seed)[0] for seed in (0, 1)]).logits(images)
        torch.testing.assert_close(found.method.logits(images), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"mean": "median"}, {"members": [{"name": 1}]}, {"greedy": 1}])
def test_a_record_from_outside_is_checked(wrong: dict[str, Any]) -> None:
    line_of = MemberRecord("test_resnet", "a", "0" * 64, True, 0, 0.5)
    values = typed_json.to_json(TrainingRecord(blend=BlendRecord("weights", True, (line_of,))))
    assert read_training_record(values).blend == BlendRecord("weights", True, (line_of,))
    with pytest.raises(ValueError, match=r".+"):
        read_training_record({**values, "blend": values["blend"] | wrong})


# ---- batch norms


def test_statistics_are_the_mean_over_batches_of_training_images(data: Path) -> None:
    sets, rows = rows_of(data, "train")
    method, spec = model()
    images = StatisticsImages(sets, rows, spec, plain_view((32, 32)), 16, torch.device("cpu"), 1)
    first = blend.batch_norms(method)[0]
    inputs: list[torch.Tensor] = []
    first.register_forward_hook(lambda _, given, __: inputs.append(given[0].detach()))
    weights = [value.clone() for value in method.parameters()]
    recompute_statistics(method, images)
    assert len(images.drawn) == len(rows) // 16 * 16 and set(images.drawn) <= set(rows.tolist())
    assert [len(one) for one in inputs] == [16] * (len(rows) // 16)
    torch.testing.assert_close(first.running_mean, torch.stack([one.mean((0, 2, 3)) for one in inputs]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([one.var((0, 2, 3)) for one in inputs]).mean(0))
    assert not any(one.training or one.momentum is None for one in blend.batch_norms(method))
    assert all(torch.equal(*pair) for pair in zip(weights, method.parameters(), strict=True))


STRONG = Augmentation("strong", ("rotation=0", "noise=0.1"))


@pytest.mark.parametrize(
    ("options", "chosen", "noted"),
    [
        ([{"augment": "gentle"}, {"augment": "gentle", "augment_options": []}], Augmentation("gentle"), False),
        ([{"augment": "gentle"}, {"augment": "gentle", "augment_options": ["flip=1"]}], Augmentation("gentle"), True),
        ([{"augment": "strong"}, {"augment": "plain"}], Augmentation("strong"), True),
        ([{}, {"augment": "gentle"}], Augmentation("gentle"), True),
        ([{}, {}], UNKNOWN, True),
        ([{"augment": ["strong"]}, {"augment": "x"}, {"augment": "plain", "augment_options": ["crop=9"]}], UNKNOWN, True),
    ],
)  # fmt: skip
def test_the_augmentation_of_statistics_is_that_of_all_models_or_there_is_a_note(
    options: list[dict[str, Any]], chosen: Augmentation, noted: bool
) -> None:
    specs = [replace(model()[1], training=TrainingRecord(options=one)) for one in options]
    found, note = common_augmentation(specs)
    assert (found, bool(note)) == (chosen, noted)


def test_a_blend_of_blends_has_the_augmentation_of_the_first_models() -> None:
    record = BlendRecord("weights", False, (), 10, STRONG.preset, STRONG.changes)
    spec = replace(model()[1], training=TrainingRecord(options={}, blend=record))
    assert common_augmentation([spec, model()[1]]) == (STRONG, "")


# ---- greedy selection


@pytest.mark.parametrize(
    ("aurocs", "blends", "used"),
    [
        ([0.7, 0.9, 0.8], {(1, 2): 0.91, (1, 2, 0): 0.905}, [1, 2]),
        ([0.7, 0.9, 0.8], {(1, 2): 0.89, (1, 0): 0.9}, [1, 0]),  # as good as without: it is added
        ([0.7, 0.7], {(0, 1): 0.6}, [0]),
    ],
)
def test_a_member_is_added_if_the_blend_does_not_get_worse(
    aurocs: list[float], blends: dict[tuple[int, ...], float], used: list[int]
) -> None:
    tried: list[tuple[int, ...]] = []

    def score(chosen: Sequence[int]) -> float:
        tried.append(tuple(chosen))
        return blends[tuple(chosen)]

    found = greedy_selection(aurocs, score)
    assert [one.member for one in found if one.used] == used and tried == list(blends)
    assert [one.auroc for one in found] == sorted(aurocs, reverse=True)
    assert [one.blended for one in found] == [max(aurocs), *blends.values()]


# ---- on data


@pytest.fixture(scope="module")
def blended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A greedy blend, the first member of which was trained on the training split, and the second on the test split."""
    root = tmp_path_factory.mktemp("blend")
    sets, train = rows_of(data, "train")
    test, val = sets.rows_of("test"), sets.rows_of("val")
    folders = [
        member(root / str(seed), seed, Provenance.of(sets, rows, val)) for seed, rows in enumerate((train, test[:3]))
    ]
    words = ["--data", str(data), "--batch", "16", "--threads", "1", "--out", str(root / "out")]
    assert cli.main(["blend", *map(str, folders), *words]) == 0
    return root / "out", folders


def test_a_blend_is_calibrated_on_validation(blended: tuple[Path, list[Path]], data: Path) -> None:
    found, (sets, val) = load_classifier(blended[0]), rows_of(data, "val")
    assert len(found.spec.temperature) == len(FINDINGS) and "youden" in found.spec.thresholds
    assert found.spec.training.fitted == len(val) and "auroc" in found.spec.metrics["validation"]
    record = found.spec.training.blend
    assert record and record.statistics and [one.blended for one in record.members] == [None, None]
    seen = found.provenance
    assert np.isin(Provenance.of(sets, val[:0], val).pixels, seen.pixels[seen.role == 1]).all()
    expected, train = blend.mean_weights([model(seed=seed)[0] for seed in (0, 1)]), sets.rows_of("train")
    images = torch.randn(2, 1, 32, 32)
    for view, same in ((replace(strong_view((32, 32)), rotation=0.0, noise=0.1), True), (plain_view((32, 32)), False)):
        recompute_statistics(expected, StatisticsImages(sets, train, found.spec, view, 16, torch.device("cpu"), 1))
        with torch.inference_mode():
            assert torch.equal(found.method.logits(images), expected.logits(images)) is same
    card = (blended[0] / "README.md").read_text(encoding="utf-8")
    assert has_facts(card, record.statistics, "strong", "rotation=0", "noise=0.1")


def test_a_test_on_the_training_data_of_any_member_is_refused(
    blended: tuple[Path, list[Path]], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folders = blended
    sets, test = rows_of(data, "test")
    for folder in (folders[0], out):
        if folder == out:
            with pytest.raises(leakage.LeakError) as error:
                leakage.check_leakage(load_classifier(folder).provenance, sets, test)
            assert error.value.leak.identical >= 3
        else:
            assert not leakage.check_leakage(load_classifier(folder).provenance, sets, test).found
    refused = line(["evaluate", str(out), "--data", str(data), "--resamples", "0"], capsys)
    assert has_facts(refused, len(test), "--allow-leak")


def test_a_test_of_an_ensemble_on_the_training_data_of_any_member_is_refused(
    blended: tuple[Path, list[Path]], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first member may be tested on these images (see above); the second was trained on three of them."""
    test = rows_of(data, "test")[1]
    out = str(tmp_path / "out")
    assert cli.main(["blend", *map(str, blended[1]), "--mean", "predictions", "--out", out]) == 0
    refused = line(["evaluate", out, "--data", str(data), "--resamples", "0"], capsys)
    assert has_facts(refused, len(test), "--allow-leak")


def test_members_that_were_left_out_are_not_among_the_training_data(
    blended: tuple[Path, list[Path]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = [Candidate(0, 0.7, 0.7, True), Candidate(1, 0.6, 0.65, False)]
    monkeypatch.setattr("ribcage.training.blending.greedy_selection", lambda aurocs, score: tried)
    words = ["--data", str(data), "--greedy", "--threads", "1", "--out", str(tmp_path / "out")]
    assert cli.main(["blend", *map(str, blended[1]), *words]) == 0
    found = load_classifier(tmp_path / "out")
    record = found.spec.training.blend
    assert record and [(one.used, one.blended) for one in record.members] == [(True, 0.7), (False, 0.65)]
    sets, test = rows_of(data, "test")
    assert not leakage.check_leakage(found.provenance, sets, test).found
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():  # a single member is left as it is
        assert torch.equal(found.method.logits(images), model(seed=0)[0].logits(images))


def test_a_member_trained_on_validation_images_is_refused_or_stated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets, val = rows_of(data, "val")
    folders = [member(tmp_path / str(n), n, Provenance.of(sets, val[: 2 * n], val)) for n in (0, 1)]
    words = ["blend", *map(str, folders), "--data", str(data), "--threads", "1", "--out", str(tmp_path / "out")]
    assert has_facts(line(words, capsys), folders[1], "val", "--allow-leak")
    spec, found = ModelSpec.load(folders[1] / "model.json"), model(seed=1)[0]
    save_bundle(folders[1], found, replace(spec, training=TrainingRecord()), Provenance.of(sets, val[:2], val))
    capsys.readouterr()
    assert cli.main([*words, "--allow-leak"]) == 0
    assert has_facts(capsys.readouterr().out, "augmentation", "strong", *STRONG.changes)
    assert "val" in (load_classifier(tmp_path / "out").spec.training.leak or "")


def test_a_union_with_data_without_patients_stays_incomplete(data: Path) -> None:
    """Patients of one part are known: those of the other must not count as compared."""
    sets, rows = rows_of(data, "train")
    known = Provenance.of(sets, rows[:20], rows[:0])
    anonymous = replace(Provenance.of(sets, rows[20:40], rows[:0]), patients=np.empty(0, np.uint64))
    for seen, unknown in ((known, False), (anonymous, True), (known | anonymous, True), (anonymous | known, True)):
        assert leakage.check_leakage(seen, sets, rows[60:], allow=True).patients_unknown is unknown
