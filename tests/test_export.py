"""Exported files predict as the model does, from bytes on, or are deleted."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disks import full_disk
from refusals import has_facts

import ribcage
from ribcage import cli
from ribcage.bundle import deployment
from ribcage.bundle.io import WEIGHTS_FILE, Classifier, load_classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data import phantom
from ribcage.data.provenance import Provenance
from ribcage.inference import image_files
from ribcage.methods.supervised import Supervised
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone
from ribcage.server import served_models


def made(folder: Path, stored: int = 48, side: int = 32, **options: Any) -> Path:
    """A model whose predictions differ from image to image."""
    torch.manual_seed(0)
    channels = options.pop("channels", 1)
    backbone = Backbone(
        "test_resnet", size=(side, side), channels=channels, rgb_normalisation=options.get("rgb_normalisation", ())
    )
    method = Supervised(backbone, ("Mass", "Nodule", "Edema"), loss=options.get("loss", "bce")).eval()
    torch.nn.init.normal_(method.head.weight, std=3.0)
    facts: dict[str, Any] = {"temperature": (1.5, 0.7, 2.0), "thresholds": {"youden": (0.2, None, 0.9)}} | options
    training = TrainingRecord(images=1, patients=1, selection=1)
    model = ModelSpec(
        "test_resnet",
        method.findings,
        (side, side),
        stored,
        "pad",
        0.45,
        0.22,
        channels=channels,
        training=training,
        **facts,
    )
    save_bundle(folder, method, model, Provenance.nothing())
    return folder


def opened(folder: Path) -> Classifier:
    return load_classifier(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its ONNX file, which takes a second to write; nothing is written there."""
    folder = made(tmp_path_factory.mktemp("exported") / "run 运行")
    ribcage.export(folder, latency=False)
    return folder


@pytest.fixture
def onnx_at_hand(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, with a model like the plain one, does not write its ONNX file again."""
    monkeypatch.setattr(deployment, "write_onnx", lambda _, file: file.symlink_to(plain / "model.onnx"))


WAYS = {"onnx": "a.onnx", "torchscript": "a.ts", "openvino": "a.xml"}
RGB = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINDS: dict[str, dict[str, Any]] = {
    "shrunk by three, one of them": {"stored": 96, "loss": "cross-entropy", "temperature": (1.3, 1.3, 1.3)},
    "shrunk by two, in RGB": {"stored": 64, "channels": 3, "rgb_normalisation": RGB},
    "interpolated": {"stored": 48},
    "as it is": {"stored": 32},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["onnx", "torchscript"])
def test_the_file_answers_as_the_model_from_bytes_on(
    kind: str, way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "interpolated":  # as the plain one is
        request.getfixturevalue("onnx_at_hand")
    folder, file = made(tmp_path / "模型 m", **KINDS[kind]), tmp_path / WAYS[way]
    result = ribcage.export(folder, to=way, out=file, latency=False)
    assert result["away"] < 2e-6
    answer = deployment.OPENED[way](file, 1)
    images = np.random.default_rng(1).integers(0, 256, (3, *[opened(folder).spec.stored] * 2), dtype=np.uint8)
    wanted = deployment.expected(opened(folder), images)
    np.testing.assert_allclose(answer(images), wanted, atol=2e-6)
    assert wanted.std(axis=0).max() > 1e-3


@pytest.mark.usefixtures("onnx_at_hand")
def test_openvino_answers_as_the_model(tmp_path: Path) -> None:
    folder = made(tmp_path / "m")
    result = ribcage.export(folder, to="openvino", out=tmp_path / "a b.xml", latency=False)
    assert result["away"] < 1e-5 and (tmp_path / "a b.bin").is_file()
    found = deployment.file_tensors("openvino", tmp_path / "a b.xml", opened(folder).spec)
    assert found == deployment.file_tensors("torchscript", tmp_path, opened(folder).spec)


def test_expected_values_are_those_of_predict(tmp_path: Path) -> None:
    import cv2

    folder = made(tmp_path / "m", stored=64)
    image = deployment.patterns(64)[5]
    cv2.imwrite(str(tmp_path / "p.png"), image)
    said = image_files.classified_files(opened(folder), [tmp_path / "p.png"]).frame()
    found = deployment.expected(opened(folder), image[None])[0]
    np.testing.assert_allclose(said[["Mass", "Nodule", "Edema"]].to_numpy()[0], found, atol=1e-6)


def test_the_file_names_its_inputs_and_outputs(plain: Path) -> None:
    import onnx

    file = plain / "model.onnx"
    shown = [str(tensor) for tensor in deployment.file_tensors("onnx", file, opened(plain).spec)]
    assert shown == ["input images: uint8 (N, 48, 48)", "output probabilities: float32 (N, 3)"]
    said = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert json.loads(said["ribcage.findings"]) == ["Mass", "Nodule", "Edema"]
    assert json.loads(said["ribcage.thresholds"]) == {"youden": [0.2, None, 0.9]}
    assert json.loads(said["ribcage.input"])["side"] == 48 and "research" in said["ribcage.use"]


def test_the_command_names_the_inputs_and_outputs_and_warns_of_synthetic_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path / "m", data=(TrainingData("phantom", phantom.SOURCE, ""),))
    warning = opened(folder).spec.warning
    assert cli.main(["export", str(folder), "--to", "torchscript", "--no-latency"]) == 0
    shown = capsys.readouterr().out
    for facts in ("images: uint8 (N, 48, 48)", "probabilities: float32 (N, 3)", "Mass, Nodule, Edema"):
        assert facts in shown
    said: dict[str, Any] = {"ribcage.warning": ""}
    with deployment.quiet():
        torch.jit.load(folder / "model.ts", _extra_files=said)
    assert said["ribcage.warning"].decode() == warning != "" and warning in shown
    assert "ribcage.warning" not in deployment.export_metadata(opened(made(tmp_path / "n")).spec)


def test_a_file_that_answers_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = made(tmp_path / "m"), tmp_path / "a.ts"
    file.write_text("older", encoding="utf-8")
    own = deployment.Deployed.__init__

    def warm(self: Any, one: Any) -> None:
        own(self, Classifier(one.folder, replace(one.spec, temperature=(9.0, 9.0, 9.0)), one.method, one.provenance))

    monkeypatch.setattr(deployment.Deployed, "__init__", warm)
    assert cli.main(["export", str(folder), "--to", "torchscript", "--out", str(file), "--no-latency"]) == 2
    assert re.search(r"0\.\d+.*0\.0001", capsys.readouterr().err)
    assert file.read_text(encoding="utf-8") == "older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ts", "m"]


@pytest.mark.usefixtures("onnx_at_hand")
def test_int8_weights_are_calibrated_on_images_and_their_cost_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "160", "--size", "48"]) == 0
    folder = made(tmp_path / "m")
    words = ["export", str(folder), "--int8", "--int8-images", "24", "--val", "train", "--no-latency"]
    assert cli.main(words) == 2
    assert "--int8" in capsys.readouterr().err
    assert cli.main([*words, "--data", str(data), "--out", str(tmp_path / "8.onnx")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"mean AUROC 0\.\d+, exported 0\.\d+: [+-]0\.\d+ \(95 % [+-]0\.\d+ to [+-]0\.\d+\)", said), said
    assert "int8" in str(onnx_kinds(tmp_path / "8.onnx")).lower()
    weights = [one for name, one in numbers(tmp_path / "8.onnx").items() if one.dtype == np.int8 and one.ndim == 4]
    assert weights and max(np.abs(one).max() for one in weights) == 64, "eight bits overflow without VNNI"


def numbers(file: Path) -> dict[str, np.ndarray]:
    """Of all weights."""
    import onnx

    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}


def onnx_kinds(file: Path) -> set[str]:
    """Of the numbers that weights are kept in."""
    import onnx

    return {onnx.TensorProto.DataType.Name(one.data_type) for one in onnx.load(file).graph.initializer}


def test_images_of_another_side_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "40", "--size", "32"]) == 0
    assert cli.main(["export", str(made(tmp_path / "m")), "--data", str(data), "--no-latency"]) == 2
    assert has_facts(capsys.readouterr().err, "32 px", "48 px")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "a.pt"], "a.pt.*\\.onnx"),
        (["--to", "torchscript", "--int8", "--data", "d"], "--int8"),
        (["--runs", "0"], "--runs 0 .*1"),
        (["--tolerance", "nan"], "--tolerance .*'nan'"),
    ],
)
def test_what_cannot_be_is_a_line(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    assert re.search(says, said) and said.count("\n") == 1


def test_what_is_no_number_is_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2
    from safetensors.torch import load_file, save_file

    folder = made(tmp_path / "m")
    weights = load_file(folder / WEIGHTS_FILE)
    weights["fc.bias"][1] = float("nan")
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / "SHA256SUMS").unlink()
    cv2.imwrite(str(tmp_path / "p.png"), deployment.patterns(48)[5])
    for words in (["export", str(folder), "--no-latency"], ["predict", str(folder), str(tmp_path / "p.png")]):
        assert cli.main(words) == 2
        assert has_facts(capsys.readouterr().err, "fc.bias", "NaN")
    assert not (folder / "model.onnx").exists()
    wanted = np.zeros((5, 3))
    assert deployment.max_difference(lambda images: np.full((len(images), 3), np.nan), wanted, wanted) == float("inf")


def test_a_server_takes_what_export_left_if_it_is_of_just_this_model(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "run 运行"))
    file = opened(folder).folder / "model.onnx"
    written: list[Path] = []
    write = deployment.write_onnx

    def noted(model: Classifier, to: Path) -> None:
        if written:  # the second time it is the same model
            shutil.copy(written[0], to)
        else:
            write(model, to)
        written.append(Path(shutil.copy(to, tmp_path / f"{len(written)}.onnx")))

    monkeypatch.setattr(deployment, "write_onnx", noted)

    def answer() -> np.ndarray:
        namer = served_models.ServedClassifier("m", opened(folder))
        namer.prepare(1)
        return namer.run(deployment.patterns(48))

    capsys.readouterr()
    before = answer()
    assert not written and "model.onnx" not in capsys.readouterr().err
    facts = opened(folder).folder / "model.json"
    model = json.loads(facts.read_text(encoding="utf-8"))
    facts.write_text(json.dumps(model | {"temperature": [3.0] * len(model["findings"])}), encoding="utf-8")
    (facts.parent / "SHA256SUMS").unlink()
    after = answer()
    assert len(written) == 1 and np.abs(after - before).max() > 1e-3
    said = [line for line in capsys.readouterr().err.splitlines() if "model.onnx" in line]
    assert len(said) == 1 and "ribcage export" in said[0]
    file.write_bytes(b"no file of ONNX's")
    deployment.write_digests([file])  # as anybody can
    np.testing.assert_array_equal(answer(), after)
    assert len(written) == 2 and file.read_bytes() == b"no file of ONNX's"  # only `export` writes there


def test_files_that_are_no_exports_are_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no file of ONNX's")
    for pipe in ("b.onnx", "b.ts", "b.xml", "c.bin"):
        os.mkfifo(tmp_path / pipe)
    (tmp_path / "c.xml").write_text("<net/>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.onnx"):
        deployment.opened_onnx(tmp_path / "a.onnx")
    for name in ("b.onnx", "b.ts", "b.xml", "c.xml"):
        way = deployment.OPENED[{"onnx": "onnx", "ts": "torchscript", "xml": "openvino"}[name[2:]]]
        with pytest.raises(OSError, match="regular file"):
            way(tmp_path / name, 1)


@pytest.mark.parametrize("way", ["onnx", "torchscript", "openvino"])
def test_a_full_disk_is_named_as_the_reason(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip({"torchscript": "torch"}.get(way, way))
    folder = made(tmp_path / "model")
    if way == "openvino":  # whose own two files find no room; the ONNX file before them has found some
        request.getfixturevalue("onnx_at_hand")
    with full_disk(), pytest.raises(OSError, match=r"(?i)no space"):
        ribcage.export(folder, to=way, latency=False)  # type: ignore[arg-type]
    assert [file for file in folder.iterdir() if "export" in file.name or file.name.startswith("model.o")] == []


def test_the_runtime_prints_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An operator that it does not know, with a name that is no UTF-8."""
    import onnx

    sides = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in ("images", "probabilities")]
    node = onnx.helper.make_node("Nope", ["images"], ["probabilities"])
    graph = onnx.helper.make_graph([node], "g", sides[:1], sides[1:])
    content = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    (tmp_path / "model.onnx").write_bytes(content.SerializeToString().replace(b"Nope", b"N\xffpe"))
    with pytest.raises(ValueError, match="cannot be opened"):
        deployment.opened_onnx(tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_weights_in_another_file_are_not_opened(tmp_path: Path) -> None:
    """Wherever they are named: at the top, in a branch, in a constant."""
    import onnx

    (tmp_path / "secret.bin").write_bytes(bytes(16))
    for place in ("top", "constant", "branch"):
        away = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
        away.external_data.add(key="location", value="secret.bin")
        constant = onnx.helper.make_node("Constant", [], ["w"], value=away)
        graph = onnx.helper.make_graph([], "g", [], [], initializer=[away] if place == "top" else [])
        if place == "constant":
            graph.node.append(constant)
        if place == "branch":
            inner = onnx.helper.make_graph([constant], "inner", [], [])
            graph.node.append(onnx.helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner))
        (tmp_path / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        with pytest.raises(ValueError, match=r"model\.onnx .*other files"):
            deployment.opened_onnx(tmp_path / "model.onnx")
