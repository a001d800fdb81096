"""Folders for Hugging Face: timm builds the same model from them, and they are read back unchanged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from test_formats_writing import gray, stirred

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.io import Bundle, load_bundle, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone

COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FACTS: dict[str, Any] = {
    "thresholds": {"f1": (0.25, None)},
    "temperature": (1.5, 2.0),
    "data": (TrainingData("Phantom", "https://example.org", "CC-BY-4.0"),),
    "training": TrainingRecord(method="supervised", images=9, patients=3, selection=2),
}
KINDS: dict[str, dict[str, Any]] = {
    "gray": {"name": "resnet18", "size": (64, 64), "stored": 72, "fit": "pad"},
    "colour": {"name": "mobilenetv3_small_050", "size": (64, 96), "stored": 96, "fit": "crop", "channels": 3, "rgb_normalisation": COLOURS},
    "patches": {"name": "test_vit", "size": (96, 96), "stored": 96, "fit": "squash", "pool": "avg"},
    "ours": {"name": "eeea_net_c1", "size": (64, 64), "stored": 64, "fit": "pad", "channels": 3},
}  # fmt: skip


def saved(folder: Path, findings: tuple[str, ...] = ("Mass", "Hernia"), **facts: Any) -> Bundle:
    """A finished model."""
    own = {"mean": 0.53, "std": 0.26, **FACTS} | facts | ({} if findings else {"thresholds": {}, "temperature": ()})
    model = ModelSpec(findings=findings, **own)
    torch.manual_seed(0)
    built = Backbone(
        model.name, channels=model.channels, size=model.size, pool=model.pool, mean=model.mean, std=model.std,
        rgb_normalisation=model.rgb_normalisation,
    )  # fmt: skip
    save_bundle(folder, stirred(Supervised(built, findings)), model, Provenance.nothing())
    return load_bundle(folder)


@pytest.fixture(scope="module", params=list(KINDS))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A finished model, and its folder."""
    place = tmp_path_factory.mktemp("拥抱 h")
    opened = saved(place / "own", **KINDS[request.param])
    assert cli.main(["convert", str(place / "own"), "--to", "huggingface", "--out", str(place / "hf")]) == 0
    return opened, place / "hf"


def theirs(config: dict[str, Any], images: torch.Tensor) -> torch.Tensor:
    """As config.json says that images must be."""
    facts = config["pretrained_cfg"]
    mean, std = (torch.tensor(facts[name])[:, None, None] for name in ("mean", "std"))
    return (images.expand(-1, facts["input_size"][0], -1, -1) - mean) / std


def test_timm_makes_the_same_model_of_it(written: tuple[Bundle, Path]) -> None:
    opened, folder = written
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == ["Mass", "Hernia"]
    assert config["pretrained_cfg"]["input_size"] == [opened.spec.channels, *opened.spec.size]
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.nn.functional.interpolate(gray(64, 2), opened.spec.size)
    with torch.inference_mode():
        own = ((images - opened.spec.mean) / opened.spec.std).expand(-1, opened.spec.channels, -1, -1)
        expected = opened.method.logits(own)
        torch.testing.assert_close(net(theirs(config, images)), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.001


def test_timm_asks_for_images_as_the_bundle_does(written: tuple[Bundle, Path]) -> None:
    opened, folder = written
    asked = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{folder}", pretrained=True))
    means, stds = opened.spec.rgb_normalisation or ((0.53,) * opened.spec.channels, (0.26,) * opened.spec.channels)
    assert (tuple(asked["mean"]), tuple(asked["std"])) == (tuple(means), tuple(stds))
    assert tuple(asked["input_size"]) == (opened.spec.channels, *opened.spec.size)
    assert asked["crop_pct"] == 1 and asked["crop_mode"] == {"pad": "border", "crop": "center"}.get(opened.spec.fit, "squash")  # fmt: skip


def test_the_folder_comes_back_as_it_was(written: tuple[Bundle, Path]) -> None:
    opened, folder = written
    out = folder.parent / "back"
    assert cli.main(["convert", str(folder), "--out", str(out)]) == 0
    assert cli.main(["convert", str(folder / "model.safetensors"), "--out", str(folder.parent / "same")]) == 0
    back, own = load_bundle(out), opened.spec
    kept, before = (load_file(place / "model.safetensors") for place in (out, opened.folder))
    assert kept.keys() == before.keys() and all(torch.equal(kept[name], before[name]) for name in before)
    assert back.spec.training.layout == "huggingface"
    for name in ("name", "findings", "size", "stored", "fit", "pool", "channels"):
        assert getattr(back.spec, name) == getattr(own, name), name
    assert back.spec.thresholds == {"published": (0.25, None)} and back.spec.temperature == own.temperature
    assert back.spec.data[0].licence == "CC-BY-4.0" and back.spec.data[0].source == "https://example.org"
    images = torch.nn.functional.interpolate(gray(64, 2), own.size)
    with torch.inference_mode():
        answers = [
            one.method.logits(((images - one.spec.mean) / one.spec.std).expand(-1, own.channels, -1, -1))
            for one in (opened, back)
        ]
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-5)


def test_the_card_has_the_head_that_the_site_reads(written: tuple[Bundle, Path]) -> None:
    _, folder = written
    start, head, card = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert start == "" and "library_name: timm\n" in head and "license: cc-by-4.0\n" in head and "- timm\n" in head
    assert "Research use only" in card and "Findings: Mass, Hernia." in card


def test_a_backbone_goes_out_without_answers(tmp_path: Path) -> None:
    opened = saved(tmp_path / "own", (), **KINDS["gray"])
    assert cli.main(["convert", str(tmp_path / "own"), "--to", "huggingface", "--out", str(tmp_path / "hf")]) == 0
    net = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True).eval()
    with torch.inference_mode():
        found = net((gray() - 0.53) / 0.26)
        torch.testing.assert_close(found, opened.method.backbone((gray() - 0.53) / 0.26), atol=1e-5, rtol=1e-5)
    assert found.shape == (3, 512)


def test_the_weights_of_a_finished_model_are_no_file_to_guess_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its findings stand in a file beside the weights."""
    saved(tmp_path / "own", **KINDS["gray"])
    words = ["convert", str(tmp_path / "own" / "model.safetensors"), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert cli.main(words) == 2 and "model folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_into_a_folder_that_is_there_it_goes_under_its_name(tmp_path: Path) -> None:
    saved(tmp_path / "own", **KINDS["gray"])
    (tmp_path / "hf").mkdir()
    for _ in range(2):  # a second time over the first
        assert cli.main(["convert", str(tmp_path / "own"), "--to", "huggingface", "--out", str(tmp_path / "hf")]) == 0
    assert [one.name for one in (tmp_path / "hf").iterdir()] == ["resnet18_xray"]
    assert len(list((tmp_path / "hf" / "resnet18_xray").iterdir())) == 3


def described(folder: Path, **said: Any) -> formats.Published:
    """What is read of a file with this beside it."""
    folder.mkdir(exist_ok=True)
    net = timm.create_model("test_resnet", num_classes=2)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return formats.published(folder / "model.safetensors")


def test_a_folder_of_timms_own_is_known_by_what_lies_beside(tmp_path: Path) -> None:
    """Mean and standard deviation are those of these weights, not those of the architecture; labels are findings where all are known."""
    facts = {
        "input_size": [3, 96, 96],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "license": "mit",
        "crop_pct": 0.9,
    }
    said = {"architecture": "test_resnet", "num_classes": 2, "global_pool": "avg", "pretrained_cfg": facts}
    found = described(tmp_path / "a", **said, label_names=["Pleural Effusion", "Pneumothorax"])
    assert (found.layout, found.name, found.licence) == ("huggingface", "test_resnet", "mit")
    assert (found.mean, found.std, found.size, found.pool) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (96, 96), "")
    assert found.findings == ("Effusion", "Pneumothorax")
    assert described(tmp_path / "b", **said, label_names=["cat", "dog"]).findings == ()
    assert described(tmp_path / "c", architecture="test_resnet", mean=[0.5] * 3, std=[0.5] * 3).mean == (0.5,) * 3


def test_a_description_by_another_program_is_ignored(tmp_path: Path) -> None:
    assert described(tmp_path, model_type="vit", hidden_size=768).layout == ""


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"architecture": "no_such_net"}, "no_such_net"),
        ({"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, "a", 2]}}, "'a'"),
        ({"architecture": "test_resnet", "pretrained_cfg": {"mean": ["a"]}}, "mean"),
        ({"architecture": "test_resnet", "pretrained_cfg": 3}, "config.json"),
    ],
)
def test_a_damaged_description_is_a_line(said: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json .*timm") as error:
        described(tmp_path, **said)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_half_of_the_weights_is_refused(
    written: tuple[Bundle, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written[1], tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    whole = load_file(file)
    lost = sorted(name for name in whole if name.endswith("weight"))[0]
    save_file({name: value for name, value in whole.items() if name != lost}, file)
    words = ["convert", str(file), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert cli.main(words) == 2 and lost in (said := capsys.readouterr().err) and said.count("\n") == 1
    file.write_bytes(file.read_bytes()[:5000])
    assert cli.main(words) == 2 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_finds_boxes_does_not_fit(tmp_path: Path) -> None:
    from ribcage.methods.detect import Detect

    built = Backbone("test_resnet", size=(64, 64))
    model = ModelSpec("test_resnet", ("Mass",), (64, 64), 64, "pad", 0.5, 0.25)
    with pytest.raises(ValueError, match="detectors"):
        formats.load_layout("huggingface").export(Detect(built, ("Mass",)), model, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
