"""Weights of CheXNet (2017) are read as its own program reads them, and written so that it reads them again."""

import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from refusals import has_facts
from torch import Tensor, nn

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats.reading import pickled
from ribcage.bundle.io import Classifier, load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

BLOCKS = (6, 12, 24, 16)
NORM = ("weight", "bias", "running_mean", "running_var")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def densenet(blocks: tuple[int, ...] = BLOCKS, rows: int = 14) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a DenseNet in torchvision of 2017."""
    norms, shapes = {"norm0": 64}, {"conv0.weight": (64, 3, 7, 7)}
    width = 64
    for block, depth in enumerate(blocks, 1):
        for layer in range(1, depth + 1):
            at = f"denseblock{block}.denselayer{layer}"
            norms |= {f"{at}.norm.1": width, f"{at}.norm.2": 128}
            shapes |= {f"{at}.conv.1.weight": (128, width, 1, 1), f"{at}.conv.2.weight": (32, 128, 3, 3)}
            width += 32
        if block < len(blocks):
            norms[f"transition{block}.norm"] = width
            shapes[f"transition{block}.conv.weight"] = (width // 2, width, 1, 1)
            width //= 2
    norms["norm5"] = width
    shapes |= {f"{at}.{part}": (size,) for at, size in norms.items() for part in NORM}
    ends = {"classifier.0.weight": (rows, width), "classifier.0.bias": (rows,)}
    return {f"features.{name}": shape for name, shape in shapes.items()} | ends


def numbered(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights, each another number everywhere, so that none is taken for another."""
    return {name: torch.full(shape, 1 + number / 8) for number, (name, shape) in enumerate(shapes.items())}


def now(name: str) -> str:
    """A name of 2017 as it is today."""
    for kind in ("norm", "conv"):
        for number in "12":
            name = name.replace(f".{kind}.{number}.", f".{kind}{number}.")
    return name.replace("classifier.0.", "classifier.")


class _Stored:
    """The numbers of a tensor, which stand behind the pickle."""

    def __init__(self, key: str, value: Tensor) -> None:
        self.key, self.value = key, value


class _Of2017(pickle.Pickler):
    """As torch 0.2 wrote tensors of a GPU."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=2)
        self.stored: list[_Stored] = []

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        self.stored.append(_Stored(str(len(self.stored)), value))
        return torch._utils._rebuild_tensor, (self.stored[-1], 0, tuple(value.shape), value.stride())

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Stored):
            return None
        return ("storage", torch.FloatStorage, value.key, "cuda:0", value.value.numel(), None)


def save_as_in_2017(content: Any, file: Path) -> None:
    """torch's form before it was a zip: a magic number, a version, the machine, the object, and then all numbers."""
    stream = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(part, stream, protocol=2)
    writer = _Of2017(stream)
    writer.dump(content)
    pickle.dump([one.key for one in writer.stored], stream, protocol=2)
    for one in writer.stored:
        stream.write(struct.pack("<q", one.value.numel()) + one.value.numpy().tobytes())
    file.write_bytes(stream.getvalue())


@pytest.fixture(scope="module")
def chexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """The file as it was published, and what is in it by today's names."""
    file = tmp_path_factory.mktemp("胸片 x") / "model.pth.tar"
    found = numbered(densenet())
    named = {f"module.densenet121.{name}": value for name, value in found.items()}
    save_as_in_2017({"epoch": 7, "best_loss": 0.15, "state_dict": named}, file)
    return file, {now(name): value for name, value in found.items()}


@pytest.fixture(scope="module")
def converted(chexnet: tuple[Path, dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """What `ribcage convert` makes of it."""
    out = tmp_path_factory.mktemp("converted") / "chexnet"
    assert cli.main(["convert", str(chexnet[0]), "--out", str(out), "--layout", "chexnet"]) == 0
    return load_classifier(out)


def test_the_file_is_of_torchs_older_form(chexnet: tuple[Path, dict[str, Tensor]]) -> None:
    """And torch itself reads it so."""
    assert chexnet[0].read_bytes().startswith(pickled.TORCH)
    state = torch.load(chexnet[0], map_location="cpu", weights_only=True)["state_dict"]
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in state
    assert not [name for name in state if "num_batches_tracked" in name]


def test_every_weight_of_2017_arrives(chexnet: tuple[Path, dict[str, Tensor]], converted: Classifier) -> None:
    found = {name: value for name, value in converted.method.backbone.model.state_dict().items() if "num_b" not in name}
    found |= {f"classifier.{name}": value for name, value in converted.method.head.state_dict().items()}
    assert found.keys() == chexnet[1].keys()
    assert not [name for name, value in chexnet[1].items() if not torch.equal(found[name], value)]


def test_what_is_known_of_the_file_is_in_the_model(converted: Classifier) -> None:
    model = converted.spec
    assert (model.name, model.findings, model.size, model.stored, model.fit) == (
        "densenet121", CHESTXRAY14, (224, 224), 256, "crop",
    )  # fmt: skip
    assert model.rgb_normalisation == (MEAN, STD) and model.data[0].name == "ChestX-ray14"
    assert model.training.layout == "chexnet" and model.training.random is None


def test_it_goes_out_for_its_own_program_and_comes_back_as_it_was(
    chexnet: tuple[Path, dict[str, Tensor]], converted: Classifier, tmp_path: Path
) -> None:
    assert cli.main(["convert", str(converted.folder), "--to", "chexnet", "--out", str(tmp_path)]) == 0
    file = tmp_path / "model.pth.tar"
    state = torch.load(file, weights_only=True)["state_dict"]
    parallel = nn.DataParallel(program())
    parallel.load_state_dict(state, strict=True)
    assert [*state] == [*parallel.state_dict()]
    assert state["module.densenet121.features.denseblock4.denselayer16.conv2.weight"].shape == (32, 128, 3, 3)
    back = formats.published(file)
    assert back.layout == "chexnet" and back.findings == CHESTXRAY14
    assert not [name for name, value in chexnet[1].items() if not torch.equal(back.state[name], value)]


def program() -> nn.Module:
    """CheXNet's own class."""
    network: Any = nn.Module()
    network.densenet121 = torchvision.models.densenet121(weights=None)
    network.densenet121.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())
    return network


def method(name: str = "densenet121", findings: tuple[str, ...] = CHESTXRAY14[::-1], channels: int = 1) -> Supervised:
    """A model of ours, its findings in another order, whose norms have seen an image."""
    torch.manual_seed(0)
    made = Supervised(Backbone(name, channels=channels), findings)
    nn.init.normal_(made.head.bias)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        made.train().logits(torch.rand(3, channels, 64, 64))
    return made.eval()


def facts(name: str = "densenet121", **options: Any) -> ModelSpec:
    return ModelSpec(name, CHESTXRAY14[::-1], (64, 64), 64, "pad", 0.53, 0.26, **options)


def test_a_model_for_gray_answers_the_same_in_its_own_program(tmp_path: Path) -> None:
    ours, network = method(), program()
    file = formats.load_layout("chexnet").export(ours, facts(), tmp_path / "mine.pth.tar")
    state = torch.load(file, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=True)
    gray = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        said: Any = network.eval()
        said = said.densenet121(torchvision.transforms.functional.normalize(gray.expand(-1, 3, -1, -1), MEAN, STD))
        expected = ours.logits((gray - 0.53) / 0.26).sigmoid()
    torch.testing.assert_close(said.flip(1), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("layout", ["chexnet", "paddle"])
@pytest.mark.parametrize(
    ("name", "findings", "options", "says"),
    [
        ("resnet18", CHESTXRAY14, {}, "densenet121.*resnet18"),
        ("densenet121", ("Edema",), {}, "14 findings of ChestX-ray14"),
        ("densenet121", CHESTXRAY14, {"loss": "cross-entropy"}, "each finding"),
        ("densenet121", CHESTXRAY14, {"pool": "max"}, "average.*'max'"),
    ],
)
def test_what_its_program_would_not_take_is_one_line(
    layout: str, name: str, findings: tuple[str, ...], options: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{layout} layout") as error:
        formats.load_layout(layout).export(Supervised(Backbone(name), findings), facts(name, **options), tmp_path)
    assert re.search(says, str(error.value)) and "\n" not in str(error.value) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "lost",
    [
        "features.denseblock3.denselayer24.norm.2.running_var",
        "features.conv0.weight",
        "features.norm5.bias",
        "features.transition2.conv.weight",
    ],
)
def test_a_file_with_a_weight_too_few_is_refused(lost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {f"module.densenet121.{name}": value for name, value in numbered(densenet()).items() if name != lost}
    torch.save({"state_dict": found}, tmp_path / "w.pth")
    assert cli.main(["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out"), "--model", "densenet121"]) == 2
    said = capsys.readouterr().err
    assert has_facts(said, "w.pth", 1, f"{now(lost)} …") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_cut_off_is_refused(
    chexnet: tuple[Path, dict[str, Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pth.tar").write_bytes(chexnet[0].read_bytes()[:20_000_000])
    assert cli.main(["convert", str(tmp_path / "w.pth.tar"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert has_facts(said, "w.pth.tar cannot be read") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_weight_of_two_names_is_refused(tmp_path: Path) -> None:
    """With a dot and without: one would be taken, the other be lost in silence."""
    found = {f"densenet121.{name}": value for name, value in numbered(densenet()).items()}
    twice = "densenet121.features.denseblock1.denselayer1.norm{}.weight"
    torch.save(found | {twice.format(1): torch.zeros(64)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth") as error:
        formats.published(tmp_path / "w.pth")
    assert twice.format(1) in str(error.value) and twice.format(".1") in str(error.value)


def test_another_densenet_with_other_rows_is_read_without_findings(tmp_path: Path) -> None:
    """Chest programs of many kinds have `densenet169.` before all; a model without 14 outputs does not have these findings."""
    found = {f"densenet169.{name}": value for name, value in numbered(densenet((6, 12, 32, 32), 5)).items()}
    torch.save(found, tmp_path / "w.pth")
    read = formats.published(tmp_path / "w.pth")
    assert (read.layout, read.name, read.findings) == ("chexnet", "densenet169", ())
    assert read.state["classifier.weight"].shape == (5, 1664)
