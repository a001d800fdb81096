"""Opaque networks: a file predicts as its own runtime does, teaches and is served, and is refused where layers are needed."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from networks import FINDINGS, Tiny, converted, saved
from onnx import TensorProto, helper
from refusals import has_facts, line
from torch import Tensor

from ribcage import cli
from ribcage.bundle.io import load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.imaging.gray_image import GrayImage
from ribcage.inference import gradcam, image_files, predictions
from ribcage.models.opaque import onnx_graph
from ribcage.models.opaque.network import OpaqueNetwork
from ribcage.runtime import digest
from ribcage.server.served_models import ServedClassifier, served_models


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("影像 d") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("网络 n")
    assert cli.main(converted(Tiny().save(folder / "tiny.onnx"), folder / "m")) == 0
    return folder / "m"


def gray(count: int = 5, side: int = 32) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(count, 1, side, side)


# ---- predictions


@pytest.mark.parametrize(
    ("tiny", "options", "scale"),
    [
        (Tiny(), (), (0.5, 0.25)),
        (Tiny(batch=2), (), (0.5, 0.25)),
        (Tiny(layout="NHWC"), (), (0.5, 0.25)),
        (Tiny(size=("H", "W")), ("--size", "32", "--channels", "1"), (0.5, 0.25)),
        (Tiny(channels=3), ("--mean", "0.4", "0.5", "0.6", "--std", "0.2", "0.25", "0.3"), ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))),
        (Tiny(), ("--value-range", "-1", "1"), (0.5, 0.5)),
        (Tiny(end="Sigmoid"), ("--output-kind", "probabilities"), (0.5, 0.25)),
        (Tiny(end="Softmax"), ("--output-kind", "probabilities", "--exclusive"), (0.5, 0.25)),
    ],
)  # fmt: skip
def test_a_bundle_predicts_as_the_network_does(
    tiny: Tiny, options: tuple[str, ...], scale: tuple, tmp_path: Path
) -> None:
    assert cli.main(converted(tiny.save(tmp_path / "a.onnx"), tmp_path / "m", *options)) == 0
    opened, (mean, std) = load_classifier(tmp_path / "m"), (torch.tensor(one).reshape(-1, 1, 1) for one in scale)
    images, model = gray(), opened.spec
    found = opened.method.logits(((images - model.mean) / model.std).expand(-1, model.channels, -1, -1))
    expected = tiny.logits((images.expand(-1, tiny.channels, -1, -1) - mean) / std)
    if tiny.end == "Softmax":
        found, expected = found.softmax(1), expected.softmax(1)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert expected.std(0).min() > 1e-3 and opened.spec.findings == FINDINGS


@pytest.mark.parametrize(
    ("tiny", "options", "step"),
    [(Tiny(kind="uint8"), ("--value-range", "0", "255"), 1.0), (Tiny(kind="int8"), (), 0.02), (Tiny(end="QuantizeLinear"), (), None)],
)  # fmt: skip
def test_integers_have_the_scale_of_the_graph(
    tiny: Tiny, options: tuple[str, ...], step: float | None, tmp_path: Path
) -> None:
    assert cli.main(converted(tiny.save(tmp_path / "a.onnx"), tmp_path / "m", *options)) == 0
    opened, images = load_classifier(tmp_path / "m"), gray()
    found = opened.method.logits((images - opened.spec.mean) / opened.spec.std)
    shown = images * 255 if tiny.kind == "uint8" else (images - 0.5) / 0.25
    if step:
        torch.testing.assert_close(
            found, tiny.logits((shown / step).round().clamp(-123, 255) * step), atol=1e-3, rtol=1e-4
        )
    else:
        assert (found - tiny.logits(shown).clamp(-2.46, 2.64)).abs().max() <= 0.0101  # half of a step of the output


def test_dropped_outputs_are_not_predicted_and_another_process_gets_the_same(tmp_path: Path) -> None:
    file = Tiny().save(tmp_path / "a.onnx")
    assert cli.main(converted(file, tmp_path / "m", findings=("-", "Mass", "Edema"))) == 0
    opened, images = load_classifier(tmp_path / "m"), gray()
    shown = (images - opened.spec.mean) / opened.spec.std
    torch.testing.assert_close(opened.method.logits(shown), Tiny().logits(shown)[:, 1:], atol=1e-5, rtol=1e-5)
    sent = pickle.loads(pickle.dumps(opened.method))
    assert torch.equal(sent.logits(shown), opened.method.logits(shown))


def test_predictions_of_a_folder_are_those_of_its_images(model: Path, data: Path) -> None:
    opened, folder = load_classifier(model), Datasets.open([str(data)])
    rows = folder.rows_of("test")
    found = predictions.predict(opened.method, folder, rows, model=opened.spec, threads=1)
    images = torch.from_numpy(np.stack([folder[0].image(int(row)) for row in rows]))[:, None].float() / 255
    expected = Tiny().logits((images - 0.5) / 0.25)
    torch.testing.assert_close(torch.from_numpy(found.logits), expected, atol=1e-4, rtol=1e-4)


# ---- commands


def test_evaluate_compare_and_calibrate(model: Path, data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        how = ["--data", str(data), "--resamples", "20", "--out", str(tmp_path / name)]
        assert cli.main(["evaluate", str(model), *how, *(["--ten-crop"] if name == "b" else [])]) == 0
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--resamples", "20"]) == 0
    assert cli.main(["convert", str(model), "--data", str(data), "--val", "train", "--out", str(tmp_path / "c")]) == 0
    spec, before = (ModelSpec.load(place / "model.json") for place in (tmp_path / "c", model))
    assert len(spec.temperature) == 3 and spec.thresholds and spec.opaque == before.opaque
    text = (tmp_path / "c" / "README.md").read_text(encoding="utf-8")
    assert (
        has_facts(text, "Opaque", "network.onnx")
        and has_facts(text, "ONNX", "tiny.onnx")
        and has_facts(text, "fitted", spec.training.fitted)
    )
    assert (tmp_path / "c" / "network.onnx").read_bytes() == (model / "network.onnx").read_bytes()


def test_maps_are_made_by_occlusion(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (48, 40), dtype=np.uint8))[1])
    assert cli.main(["predict", str(model), str(file), "--maps", str(tmp_path / "maps")]) == 0
    assert has_facts(capsys.readouterr().out, "occlusion", "14 × 14")
    assert cv2.imread(str(next((tmp_path / "maps").iterdir()))).shape[:2] == (48, 40)
    for words in (["--map-method", "gradcam"], ["--check-maps"]):
        said = line(["predict", str(model), str(file), "--maps", str(tmp_path / "x"), *words], capsys)
        assert has_facts(said, words[0], "opaque")
    with pytest.raises(ValueError, match="occlusion"):
        gradcam.saliency_maps(load_classifier(model).method, gray(), gradcam.MapMethod("layercam"))


@pytest.mark.parametrize("words", [["--augment", "gentle"], ["--augment", "plain"]])
def test_it_teaches_a_student_live_and_stored(words: list[str], model: Path, data: Path, tmp_path: Path) -> None:
    how = ["--model", "test_resnet", "--epochs", "1", "--batch", "16", "--threads", "1", "--size", "32"]
    given = ["--teacher", str(model), "--data", str(data), "--out", str(tmp_path / "s")]
    assert cli.main(["distil", *given, *how, *words]) == 0
    (teacher,) = ModelSpec.load(tmp_path / "s" / "bundle" / "model.json").training.teachers or ()
    assert teacher.name == "tiny.onnx" and teacher.findings == FINDINGS


def test_the_server_predicts_and_explains_as_predict_does(model: Path) -> None:
    opened = load_classifier(model)
    (served,) = served_models([opened]).values()
    assert isinstance(served, ServedClassifier)
    served.prepare(1)
    squares = [(one[0].numpy() * 255).astype(np.uint8) for one in gray(3)]
    found = served.predict([GrayImage(one, 32, 32) for one in squares])
    shown = (torch.from_numpy(np.stack(squares))[:, None] / 255 - 0.5) / 0.25
    expected = Tiny().logits(shown).sigmoid()
    said = [[one["probability"] for one in each["findings"]] for each in found]  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.tensor(said), expected, atol=1e-5, rtol=1e-4)
    heat, _ = served.saliency(GrayImage(squares[0], 32, 32), "Mass", 32)
    assert heat.shape == (32, 32) and 0 <= heat.min() < heat.max() <= 1


NEEDS_LAYERS = {
    "finetune --data DATA --init MODEL --model test_resnet --out OUT": "opaque",
    "pretrain moco --data DATA --init MODEL --model test_resnet --out OUT": "opaque",
    "distil --teacher MODEL --data DATA --feature-weight 1 --model test_resnet --out OUT": "--feature-weight .*opaque",
    "export MODEL --out OUT/a.onnx": "opaque",
    "profile MODEL --no-latency": "opaque",
    "blend MODEL MODEL --mean predictions --out OUT": "opaque",
    "localise --head cam --init MODEL --data DATA --out OUT": "opaque",
    "probe MODEL --data DATA": "opaque",
    "convert MODEL --to torchvision --out OUT": "opaque",
}


@pytest.mark.parametrize("words", NEEDS_LAYERS)
def test_what_needs_layers_is_refused_in_one_line(
    words: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"MODEL": str(model), "DATA": str(data), "OUT": str(tmp_path / "out")}
    places = [given.get(word, word.replace("OUT", given["OUT"])) for word in words.split()]
    assert cli.main(places) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("ribcage: ") and has_facts(said, *NEEDS_LAYERS[words].split(" .*"))


# ---- bundles


def test_a_bundle_runs_the_file_that_model_json_describes_and_no_other(model: Path, tmp_path: Path) -> None:
    import shutil

    changed = tmp_path / "m"
    shutil.copytree(model, changed)
    Tiny(outputs=3, end="Sigmoid").save(changed / "network.onnx")
    (changed / digest.SUMS).unlink()
    with pytest.raises(ValueError, match=r"network\.onnx is damaged"):
        load_classifier(changed)
    said = json.loads((model / "model.json").read_text(encoding="utf-8"))
    for key, value in (
        ("file", "../../etc/passwd"),
        ("columns", [0, 1, 7]),
        ("columns", [0, 0, 1]),
        ("count", 10**9),
        ("sha256", "f"),
    ):
        other = {**said, "opaque": {**said["opaque"], key: value}}
        (changed / "model.json").write_text(json.dumps(other), encoding="utf-8")
        with pytest.raises(ValueError, match="opaque has the invalid value"):
            load_classifier(changed)


# ---- conversion


WRONG = {
    "no findings": (Tiny(), ["--findings"], ("--findings",)),
    "no mean": (Tiny(), ["--value-range", "5", "5"], ("--value-range",)),
    "three channels, two means": (Tiny(channels=3), ["--mean", "0.5", "0.5", "0.5", "--std", "1", "1"], ("--mean", 3, 2)),
    "another size": (Tiny(), ["--size", "64"], ("32 × 32", "64 × 64")),
    "no size": (Tiny(size=("H", "W")), [], ("--size",)),
    "too few findings": (Tiny(outputs=5), [], (5, 3)),
    "two channels": (Tiny(channels=2), [], (2, "1 or 3")),
    "hidden probabilities": (Tiny(end="Sigmoid"), [], ("--output-kind",)),
    "a hidden softmax": (Tiny(end="Softmax"), ["--output-kind", "probabilities"], ("sum of 1", "--exclusive")),
    "no probabilities": (Tiny(), ["--output-kind", "probabilities"], ("--output-kind probabilities", "0 and 1")),
    "no such output": (Tiny(), ["--output-name", "logits"], ("logits", "scores")),
    "a checkpoint's option": (Tiny(), ["--model", "resnet18", "--partial"], ("--model", "--partial")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_the_file_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, options, facts = WRONG[name]
    words = converted(tiny.save(tmp_path / "a.onnx"), tmp_path / "m", *options)
    if "--findings" in options:
        words = [word for word in words if word not in ("--findings", *FINDINGS)]
    assert has_facts(line(words, capsys), *facts) and not (tmp_path / "m").exists()


def test_options_of_networks_do_not_apply_to_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = line(
        ["convert", str(tmp_path / "a.pth"), "--out", str(tmp_path / "m"), "--exclusive", "--fit", "pad"], capsys
    )
    assert has_facts(said, "--fit") and has_facts(said, "--exclusive")


# ---- hostile files


def graph(
    nodes: list, *, inputs: int = 1, initializer: tuple = (), shape: tuple = ("N", 1, 32, 32), out: tuple = ("N", 3)
) -> onnx.GraphProto:
    """A graph from `scan` to `scores`."""
    given = [
        helper.make_tensor_value_info(f"scan{'x' * place}", TensorProto.FLOAT, list(shape)) for place in range(inputs)
    ]
    made = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, list(out))]
    return helper.make_graph(nodes, "g", given, made, initializer=initializer)


def node(kind: str, inputs: list[str] = ["scan"], **options: object) -> onnx.NodeProto:  # noqa: B006 – not changed
    return helper.make_node(kind, inputs, ["scores"], **options)  # type: ignore[arg-type]


def elsewhere() -> TensorProto:
    away = TensorProto(name="w", data_type=1, dims=[3], data_location=TensorProto.EXTERNAL)
    away.external_data.add(key="location", value="/etc/passwd")
    return away


def nested(depth: int) -> onnx.GraphProto:
    inner = graph([node("Identity")])
    for _ in range(depth):
        inner = graph([node("If", ["scan"], then_branch=inner, else_branch=graph([node("Identity")]))])
    return inner


MEAN = helper.make_node("ReduceMean", ["scan"], ["mean"], axes=[2, 3], keepdims=0)
HOSTILE = {
    "not a graph": (lambda: b"\x08\x08\x99" * 50, "not a valid ONNX file"),
    "empty": (lambda: b"", "not a valid ONNX file"),
    "weights elsewhere": (lambda: graph([node("Add", ["scan", "w"])], initializer=(elsewhere(),)), "other files"),
    "weights elsewhere in a constant": (lambda: graph([node("Constant", [], value=elsewhere())]), "other files"),
    "an operator of a library": (lambda: graph([node("Run", domain="evil.lib")]), "evil.lib"),
    "an unknown operator": (lambda: graph([node("Nope")]), "ONNX Runtime"),
    "a loop": (lambda: graph([node("Loop", ["n", "c", "scan"], body=graph([node("Identity")]))]), "Loop"),
    "a loop inside a branch": (
        lambda: graph([node("If", then_branch=graph([node("Loop", body=nested(0))]), else_branch=nested(0))]), "Loop",
    ),
    "branches in branches": (lambda: nested(20), "nested"),
    "two inputs": (lambda: graph([node("Add", ["scan", "scanx"])], inputs=2), "one input"),
    "three dimensions": (lambda: graph([node("Identity")], shape=("N", 32, 32), out=("N", 32, 32)), "four dimensions"),
    "huge output": (lambda: graph([node("Identity")], shape=("N", 1, 3000, 3000), out=("N", 1, 3000, 3000)), "one score"),
    "another rank than stated": (lambda: graph([node("Identity")]), ""),
    "NaN": (
        lambda: graph(
            [MEAN, helper.make_node("Sub", ["mean", "big"], ["minus"]), helper.make_node("Log", ["minus"], ["l"]),
             node("Concat", ["l", "l", "l"], axis=1)],
            initializer=(helper.make_tensor("big", 1, [], [1e9]),),
        ), "NaN",
    ),
    "always the same": (lambda: graph([MEAN, helper.make_node("Mul", ["mean", "zero"], ["l"]), node("Concat", ["l", "l", "l"], axis=1)],
                          initializer=(helper.make_tensor("zero", 1, [], [0.0]),)), "same output"),
    "gigabytes from nothing": (
        lambda: graph([helper.make_node("ConstantOfShape", ["sides"], ["full"]), MEAN,
                       helper.make_node("ReduceMax", ["full"], ["most"], keepdims=0),
                       helper.make_node("Add", ["mean", "most"], ["l"]), node("Concat", ["l", "l", "l"], axis=1)],
                      initializer=(helper.make_tensor("sides", 7, [2], [2**20, 2**24]),)), "too large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, fact = HOSTILE[name]
    made, file = make(), tmp_path / "a.onnx"
    file.write_bytes(made) if isinstance(made, bytes) else saved(made, file)
    assert cli.main(converted(file, tmp_path / "m", "--output-kind", "logits")) == 2
    said = capfd.readouterr().err.strip()
    assert said.startswith("ribcage: ") and "\n" not in said and fact in said and not (tmp_path / "m").exists()


def test_the_number_of_operators_is_limited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "MOST_NODES", 5)
    assert has_facts(line(converted(Tiny().save(tmp_path / "a.onnx"), tmp_path / "m"), capsys), 5, "operators")


def test_a_network_has_no_weights_that_torch_could_train(model: Path) -> None:
    method = load_classifier(model).method
    assert isinstance(method, OpaqueNetwork) and not list(method.parameters())


# ---- a real network


def test_a_published_network_ranks_real_radiographs(real: Path, tmp_path: Path) -> None:
    """Its logits, with the resizing of Ribcage, are those that ONNX Runtime computes for the image of OpenCV."""
    import onnxruntime
    import pandas as pd

    file, rows = real / "foreign" / "nih_mobilenetv3_small_int8.onnx", pd.read_csv(real / "nih" / "manifest.csv")
    names = ["-", "Infiltration", "Atelectasis", "Effusion", "Nodule", "Pneumothorax", "Mass", "Consolidation"]
    names += ["Pleural_Thickening", "Cardiomegaly", "Emphysema", "Fibrosis", "Edema", "Pneumonia", "Hernia"]
    words = converted(file, tmp_path / "m", "--mean", "0.485", "--std", "0.229", findings=names)
    assert cli.main(words) == 0
    opened, tests = load_classifier(tmp_path / "m"), rows[rows["arnoweng_split"] == "test"].head(24)
    paths = [(real / "nih" / "images_256" / name).with_suffix(".jpg") for name in tests["image"]]
    found = image_files.classified_files(opened, paths).frame()
    small = [cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (224, 224)) for path in paths]
    shown = ((np.stack(small)[:, None] / 255 - 0.485) / 0.229).astype(np.float32)
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    expected = 1 / (1 + np.exp(-session.run(None, {"input": shown})[0]))
    assert np.corrcoef(found["Effusion"], expected[:, 3])[0, 1] > 0.98
    assert np.corrcoef(found["Mass"], expected[:, 6])[0, 1] > 0.98
