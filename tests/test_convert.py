"""ribcage convert: the converted model predicts as the authors' program does, or nothing is written."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from refusals import has_facts, line
from test_formats_writing import gray, stirred, theirs
from torch import Tensor, nn

from ribcage import cli
from ribcage.bundle import history, onnx_export
from ribcage.bundle.history import PastTest
from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import load_bundle, load_classifier
from ribcage.data.findings import CHESTXRAY14
from ribcage.models.stem import GRAY

CHEXNETS = ("--layout", "chexnet")
"""Its fourteen rows are ChestX-ray14's."""
RESNETS = ("--model", "resnet18", "--layout", "torchvision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("权重 w")


@pytest.fixture(scope="module")
def chexnet(folder: Path) -> Any:
    """torchvision's DenseNet-121, and the file that CheXNet's program would have kept of it."""
    net = stirred(torchvision.models.densenet121(num_classes=14))
    weights = {
        f"module.densenet121.{name.replace('classifier.', 'classifier.0.')}": value
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save({"epoch": 3, "state_dict": weights, "best_loss": 0.1}, folder / "model.pth.tar")
    return net


@pytest.fixture(scope="module")
def converted(chexnet: nn.Module, folder: Path) -> Path:
    assert cli.main(["convert", str(folder / "model.pth.tar"), "--out", str(folder / "chexnet"), *CHEXNETS]) == 0
    return folder / "chexnet"


def ours(images: Tensor, model: Any) -> Tensor:
    """As the loader gives them."""
    return ((images - model.mean) / model.std).expand(-1, model.channels, -1, -1)


def test_a_converted_model_answers_as_its_own_program(chexnet: nn.Module, converted: Path) -> None:
    opened = load_classifier(converted)
    images = gray(96)
    with torch.inference_mode():
        found, expected = opened.method.logits(ours(images, opened.spec)), chexnet(theirs(images))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert opened.spec.findings == CHESTXRAY14 and expected.std() > 0.01


def test_the_bundle_holds_the_published_numbers_themselves(chexnet: nn.Module, converted: Path) -> None:
    from safetensors.torch import load_file

    kept, own = load_file(converted / "model.safetensors"), chexnet.state_dict()
    assert kept.keys() == own.keys()
    assert not [name for name, value in own.items() if value.is_floating_point() and not torch.equal(value, kept[name])]


def test_the_lines_on_the_card_open_it(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (converted / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(converted)
    found: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], found)
    with torch.inference_mode():
        assert found["model"](torch.zeros(1, 3, 64, 64)).shape == (1, 14)
    assert "m = (0.485, 0.456, 0.406)" in card and has_facts(card, "training data", "model.pth.tar", "not known")
    assert has_facts(card, "licence", "none") and "Research use only" in card


def test_folded_for_gray_it_answers_nearly_so(chexnet: nn.Module, folder: Path) -> None:
    """Exactly where nothing is padded; that is tested of the fold itself."""
    file, out = str(folder / "model.pth.tar"), folder / "gray"
    assert cli.main(["convert", file, "--out", str(out), "--channels", "1", "--size", "96", *CHEXNETS]) == 0
    opened = load_classifier(out)
    assert (opened.spec.channels, opened.spec.rgb_normalisation, opened.spec.size) == (1, (), (96, 96))
    assert (opened.spec.mean, opened.spec.std) == GRAY
    images = gray(96)
    with torch.inference_mode():
        found, expected = opened.method.logits(ours(images, opened.spec)), chexnet(theirs(images))
    assert (found - expected).abs().max() < 0.05 * expected.std()


def test_exports_and_saliency_maps_use_the_same_rgb_normalisation(converted: Path) -> None:
    """Also maps for detectors and for heat."""
    opened = load_classifier(converted)
    images, method = ours(gray(96), opened.spec), opened.method
    with torch.inference_mode():
        torch.testing.assert_close(onnx_export.Network(method)(images), method.logits(images))
        pooled = method.backbone.pyramid(images)[-1].mean((2, 3))
        torch.testing.assert_close(pooled, method.backbone(images), atol=1e-5, rtol=1e-4)


def test_training_goes_on_from_it(converted: Path) -> None:
    """Its stem is folded like that of any file, also when three channels are asked for."""
    opened = load_classifier(converted)
    for channels in (1, 3):
        model = replace(opened.spec, channels=channels, rgb_normalisation=(), size=(64, 64))
        built = initial_backbone(model, str(converted), 0.0).model.state_dict()
        same = [
            name for name, value in opened.method.backbone.model.state_dict().items() if torch.equal(built[name], value)
        ]
        assert len(same) >= len(built) - 2 and built["features.conv0.weight"].shape[1] == channels


def test_it_goes_out_again_to_the_bit(chexnet: nn.Module, converted: Path, folder: Path) -> None:
    assert cli.main(["convert", str(converted), "--to", "torchvision", "--out", str(folder / "back.pth")]) == 0
    back = torch.load(folder / "back.pth", weights_only=True)
    own = chexnet.state_dict()
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], value) for name, value in own.items() if value.is_floating_point())


def written(folder: Path, name: str, change: Any = None) -> Path:
    """A small file of torchvision's names, after a change."""
    weights = dict(stirred(torchvision.models.resnet18(num_classes=3)).state_dict())
    if change:
        change(weights)
    torch.save(weights, folder / name)
    return folder / name


def test_rows_of_a_last_layer_are_named_by_the_user(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(folder, "three.pth"), folder / "three"
    words = ["convert", str(file), *RESNETS, "--out", str(out), "--findings"]
    assert has_facts(line([*words, "Mass", "Nodule"], capsys), "3 outputs", 2)
    assert not out.exists()
    assert cli.main([*words, "Mass", "-", "Nodule"]) == 0
    opened, weight = load_classifier(out), torch.load(file, weights_only=True)["fc.weight"]
    assert opened.spec.findings == ("Mass", "Nodule")
    assert torch.equal(opened.method.head.weight, weight[[0, 2]])


def test_a_last_layer_that_nobody_names_is_left_out_aloud(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "headless"
    assert cli.main(["convert", str(written(folder, "h.pth")), *RESNETS, "--out", str(out)]) == 0
    assert "--findings" in capsys.readouterr().out
    assert load_bundle(out).spec.findings == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("layer3.1.bn2.running_var"), "99 of the 100 weights .*layer3.1.bn2.running_var"),
        (
            lambda state: state.update({"layer9.weight": torch.zeros(3)}),
            r"100 of the 100 weights .*1 .*layer9.weight",
        ),
        (lambda state: state.update({"bn1.weight": torch.zeros(3)}), "bn1.weight: 3 for 64"),
    ],
    ids=["missing", "unknown", "other shape"],
)
def test_what_does_not_fit_is_refused_unless_told(
    change: Any, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / f"partial {says[:4]}"
    words = ["convert", str(written(folder, "p.pth", change)), *RESNETS, "--out", str(out)]
    assert re.search(says, said := line(words, capsys)), said
    assert not out.exists()
    assert cli.main([*words, "--partial"]) == 0
    random = json.loads((out / "model.json").read_text(encoding="utf-8"))["training"].get("random", [])
    assert ("at random" in (out / "README.md").read_text(encoding="utf-8")) == bool(random)


def test_an_unknown_file_asks_for_its_architecture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a.weight": torch.zeros(3)}, folder / "a.pth")
    assert "--model" in line(["convert", str(folder / "a.pth"), "--out", str(folder / "a")], capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["convert"], "FILE"),
        (["convert", "x.pth"], "--out"),
        (["convert", "x", "--out", "y", "--to", "torchvision", "--partial"], "--partial"),
        (["convert", "x", "--out", "y", "--mean", "0.5"], "--mean and --std"),
        (["convert", "x", "--out", "y", "--to", "moko"], "Unknown layout 'moko'"),
        (["convert", "no.pth", "--out", "y"], "no.pth"),
    ],
)
def test_what_cannot_be_done_is_a_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(words) in (1, 2)
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_model_is_not_written_over_another(converted: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (converted / "model.safetensors").read_bytes()
    words = ["convert", str(folder / "model.pth.tar"), "--out", str(converted)]
    assert has_facts(line(words, capsys), "--out", converted)
    assert (converted / "model.safetensors").read_bytes() == before


def test_colours_that_cannot_be_are_damage(converted: Path, folder: Path) -> None:
    for number, rgb_normalisation in enumerate(
        ([[0.5], [1.0]], [[0, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, float("nan")]], "x")
    ):
        broken = folder / f"broken {number}"
        shutil.copytree(converted, broken)
        facts = json.loads((broken / "model.json").read_text(encoding="utf-8"))
        (broken / "model.json").write_text(
            json.dumps({**facts, "rgb_normalisation": rgb_normalisation}), encoding="utf-8"
        )
        with pytest.raises(ValueError, match="damaged: rgb_normalisation"):
            load_classifier(broken)


def test_an_older_model_opens(converted: Path, folder: Path) -> None:
    """Written before detectors were, and before published weights came in."""
    older = folder / "older"
    words = ["convert", str(folder / "model.pth.tar"), "--out", str(older), "--channels", "1", *CHEXNETS]
    assert cli.main(words) == 0
    facts = json.loads((older / "model.json").read_text(encoding="utf-8"))
    for name in ("rgb_normalisation", "detector"):
        del facts[name]
    facts["format"] = 1
    (older / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    (older / "SHA256SUMS").unlink()
    assert load_classifier(older).spec.rgb_normalisation == () and np.isfinite(load_classifier(older).spec.mean)
    shutil.rmtree(older)


def test_images_of_ones_own_choose_temperature_and_thresholds(
    converted: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a file and of a model converted before alike; the images then serve no honest test."""
    data = folder / "数据 data"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "120", "--size", "32"]) == 0
    words = ["convert", "--data", str(data), "--val", "train"]
    assert "--to" in line(["convert", str(converted), "--out", str(folder / "x")], capsys)
    small = [str(folder / "model.pth.tar"), *CHEXNETS, "--size", "64", "--out"]  # fewer pixels, the same way
    assert cli.main(["convert", *small, str(folder / "before")]) == 0
    past = PastTest(0, "nih", "test", "k", ("i",), "w", "", True, 100, 50, 3, "mean AUROC", 0.9, 0.8, 0.95)
    history.add(folder / "before", past)
    assert cli.main([*words, str(folder / "before"), "--out", str(folder / "fitted")]) == 0
    assert history.load_tests(folder / "fitted") == history.load_tests(folder / "before") != []
    assert history.load_tests(folder / "before")[0].key == "k"
    assert cli.main([*words, *small, str(folder / "also")]) == 0
    one, other = load_classifier(folder / "fitted"), load_classifier(folder / "also")
    assert one.spec.temperature == other.spec.temperature and len(set(one.spec.temperature)) > 1
    assert one.spec.thresholds.keys() == other.spec.thresholds.keys() and one.spec.thresholds
    card = (folder / "fitted" / "README.md").read_text(encoding="utf-8")
    assert has_facts(card, "temperature", "thresholds", "fitted")
    assert (one.provenance.role == 1).all() and len(one.provenance.role) > 50
    assert one.provenance.unknown.tolist() == ["model.pth.tar"]
    test = ["evaluate", str(folder / "fitted"), "--data", str(data), "--split", "train"]
    assert has_facts(line(test, capsys), "90 test images", "43 patients")


# ---- what a reader found


def changed(folder: Path, name: str, change: Any) -> list[str]:
    """The words that convert such a file of three rows."""
    out = folder / f"of {name}"
    words = ["convert", str(written(folder, name, change)), "--out", str(out), *RESNETS]
    return [*words, "--findings", "Mass", "Edema", "Hernia"]


def deep(state: dict[str, Tensor]) -> None:
    """A last layer of two parts."""
    state.update({"fc.0.weight": state.pop("fc.weight"), "fc.0.bias": state.pop("fc.bias")})
    state.update({"fc.2.weight": torch.ones(3, 3), "fc.2.bias": torch.ones(3)})


def behind_dropout(state: dict[str, Tensor]) -> None:
    """A last layer behind what has no weights."""
    state.update({"fc.1.weight": state.pop("fc.weight"), "fc.1.bias": state.pop("fc.bias")})


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("deep.pth", deep, "(fc.0.weight"),
        (
            "nan.pth",
            lambda state: state["layer1.0.conv1.weight"].fill_(float("nan")),
            "layer1.0.conv1.weight",
        ),
        ("variance.pth", lambda state: state["bn1.running_var"].fill_(-1.0), "bn1.running_var"),
        ("int8.pth", lambda state: state.update({"conv1.weight": state["conv1.weight"].to(torch.int8)}), "of int8 for"),
        ("nobias.pth", lambda state: state.pop("fc.bias"), "bias"),
    ],
)
def test_what_is_no_such_model_is_refused(
    name: str, change: Any, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in line(changed(folder, name, change), capsys)
    assert not (folder / f"of {name}").exists()


def test_a_last_layer_behind_dropout_is_the_last_layer(folder: Path) -> None:
    assert cli.main(changed(folder, "dropout.pth", behind_dropout)) == 0
    weight = torch.load(folder / "dropout.pth", weights_only=True)["fc.1.weight"]
    assert torch.equal(load_classifier(folder / "of dropout.pth").method.head.weight, weight)


def test_findings_inferred_from_the_number_of_rows_are_reported_as_inferred(
    converted: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CheXpert has fourteen findings, too."""
    assert "inferred" in (converted / "README.md").read_text(encoding="utf-8")
    words = ["convert", str(folder / "model.pth.tar"), "--out", str(folder / "told"), "--findings", *CHESTXRAY14]
    assert cli.main(words) == 0 and "number of outputs" not in capsys.readouterr().out
    assert "inferred" not in (folder / "told" / "README.md").read_text(encoding="utf-8")


def test_what_was_learnt_from_a_file_keeps_its_licence_and_its_unknown_history(folder: Path) -> None:
    data = folder / "small data"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "120", "--size", "32"]) == 0
    words = ["finetune", "--data", str(data), "--model", "resnet18", "--size", "32", "--epochs", "1"]
    words += ["--init", str(written(folder, "first.pth")), "--out", str(folder / "run")]
    assert cli.main(words) == 0
    opened = load_classifier(folder / "run")
    assert opened.spec.data[0].before and opened.spec.data[0].name == "first.pth"
    assert opened.provenance.unknown.tolist() == ["first.pth"]


@pytest.mark.parametrize(
    "more", [["--std", "0", "0", "0", "--mean", "0", "0", "0"], ["--size", "100000"], ["--mean", "nan", "--std", "1"]]
)
def test_no_model_is_written_that_does_not_open(
    more: list[str], chexnet: nn.Module, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line(["convert", str(folder / "model.pth.tar"), "--out", str(folder / "never"), *more], capsys)
    assert not (folder / "never").exists()


def test_nothing_is_written_over(converted: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    words = ["convert", str(converted), "--to", "torchvision", "--out"]
    assert "notes.txt" in line([*words, str(folder / "notes.txt")], capsys)
    assert has_facts(line([*words, str(converted / "x.pth")], capsys), converted)
    assert "--channels" in line([*words, str(folder / "y.pth"), "--channels", "1"], capsys)


def test_all_findings_that_a_layout_assumes_are_in_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their order has to be checked before the layout is confirmed."""
    net = torchvision.models.densenet121(num_classes=18)
    net.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(net.state_dict(), tmp_path / "own.pt")
    refused = line(["convert", str(tmp_path / "own.pt"), "--out", str(tmp_path / "out")], capsys)
    assert has_facts(refused, "--layout xrayvision", "Lung_Opacity, Enlarged_Cardiomediastinum;")
