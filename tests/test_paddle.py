"""Paddle-CheXNet's files are read and written without Paddle; where Paddle is installed, its predictions are the same."""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import has_facts
from torch import Tensor

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats.reading import pickled
from ribcage.bundle.io import Classifier, load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

TABLE = "StructuredToParameterName@@"


def places() -> dict[str, tuple[str, tuple[int, ...]]]:
    """What Paddle calls a weight → what timm does, and its shape in Paddle."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def norm(theirs: str, ours: str, width: int) -> None:
        parts = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}
        found.update({f"{theirs}.{one}": (f"{ours}.{other}", (width,)) for one, other in parts.items()})

    def layer(theirs: str, ours: str, number: str, width: int, shape: tuple[int, ...]) -> None:
        norm(f"{theirs}._batch_norm", f"{ours}.norm{number}", width)
        found[f"{theirs}._conv.weight"] = (f"{ours}.conv{number}.weight", shape)

    found["conv1_func._conv.weight"] = ("features.conv0.weight", (64, 3, 7, 7))
    norm("conv1_func._batch_norm", "features.norm0", 64)
    width = 64
    for block, depth in ((2, 6), (3, 12), (4, 24), (5, 16)):
        for one in range(1, depth + 1):
            theirs, ours = f"db_conv_{block}.conv{block}_{one}", f"features.denseblock{block - 1}.denselayer{one}"
            layer(f"{theirs}.bn_ac_func1", ours, "1", width, (128, width, 1, 1))
            layer(f"{theirs}.bn_ac_func2", ours, "2", 128, (32, 128, 3, 3))
            width += 32
        if block < 5:
            at = f"tr_conv{block}_blk.conv_ac_func"
            layer(at, f"features.transition{block - 1}", "", width, (width // 2, width, 1, 1))
            width //= 2
    norm("batch_norm", "features.norm5", width)
    found["out.0.weight"] = ("classifier.weight", (width, 14))
    found["out.0.bias"] = ("classifier.bias", (14,))
    return {f"densenet121.{name}": value for name, value in found.items()}


def arrays() -> dict[str, np.ndarray]:
    """The weights of a file, each another number everywhere; those of the last layer all others."""
    found = {name: np.full(shape, 1 + at / 8, np.float32) for at, (name, (_, shape)) in enumerate(places().items())}
    return found | {"densenet121.out.0.weight": np.arange(1024 * 14, dtype=np.float32).reshape(1024, 14)}


def content() -> dict[str, Any]:
    """As paddle.save writes it: beside the arrays, their other names."""
    return {**arrays(), TABLE: {name: f"param_{at}" for at, name in enumerate(arrays())}}


def aged(data: bytes) -> bytes:
    """As NumPy of Paddle's days named what begins an array."""
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("桨 x") / "model_paddle.pdparams"
    file.write_bytes(pickle.dumps(content(), protocol=4))
    return file


@pytest.fixture(scope="module")
def converted(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    out = tmp_path_factory.mktemp("converted") / "paddle"
    assert cli.main(["convert", str(file), "--out", str(out), "--layout", "paddle"]) == 0
    return load_classifier(out)


def test_every_weight_arrives_the_last_layer_turned(converted: Classifier) -> None:
    found = {name: value for name, value in converted.method.backbone.model.state_dict().items() if "num_b" not in name}
    found |= {f"classifier.{name}": value for name, value in converted.method.head.state_dict().items()}
    expected = {places()[name][0]: torch.from_numpy(value) for name, value in arrays().items()}
    expected["classifier.weight"] = expected["classifier.weight"].T
    assert found.keys() == expected.keys() and len(found) == 606
    assert not [name for name, value in expected.items() if not torch.equal(found[name], value)]
    model = converted.spec
    assert (model.name, model.findings, model.training.layout) == ("densenet121", CHESTXRAY14, "paddle")
    assert model.rgb_normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) and model.training.random is None


def test_it_goes_out_as_it_came(converted: Classifier, tmp_path: Path) -> None:
    """Names, shapes and numbers; and under the name for the beginning of an array that NumPy of any age knows."""
    assert cli.main(["convert", str(converted.folder), "--to", "paddle", "--out", str(tmp_path)]) == 0
    data = (tmp_path / "model_paddle.pdparams").read_bytes()
    back = pickle.loads(data)
    assert [*back.pop(TABLE)] == [*back]
    assert back.keys() == arrays().keys()
    assert not [name for name, value in arrays().items() if not np.array_equal(back[name], value)]
    assert {value.dtype for value in back.values()} == {np.dtype("<f4")}
    asked = [arg for step, arg, _ in pickletools.genops(data) if step.name == "GLOBAL"]
    assert {*asked} == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"} | ({"_codecs encode"} & {*asked})  # fmt: skip
    assert next(pickletools.genops(data))[1] == 3


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("aging", [aged, bytes], ids=["old-numpy", "new-numpy"])
def test_arrays_of_all_kinds_are_read_from_pickles_of_all_ages(protocol: int, aging: Any, tmp_path: Path) -> None:
    """Also turned, of one number, of none, and of the other order of bytes."""
    numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    kinds = {kind: numbers.astype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", ">f4", ">i8")}
    given = {**kinds, "turned": numbers.T, "by columns": np.asfortranarray(numbers), "none": np.zeros((0, 3), "f4")}
    given |= {"one": np.array(3.5, "f4"), "every second": numbers[:, ::2]}
    extra = {
        "epoch": 3,
        "score": np.float64(0.5),
        "deep": {"er": numbers},
        "text": "é 胸",
        "list": [1, 2.5, None, True],
    }
    (tmp_path / "w.pdparams").write_bytes(aging(pickle.dumps({**given, **extra}, protocol=protocol)))
    found = pickled.load_pickle(tmp_path / "w.pdparams")
    for name, value in given.items():
        native = np.ascontiguousarray(value).reshape(value.shape).astype(value.dtype.newbyteorder("="))
        assert torch.equal(found[name], torch.from_numpy(native)), name
    assert (found["epoch"], found["score"], found["text"], found["list"]) == (3, 0.5, "é 胸", [1, 2.5, None, True])
    assert torch.equal(found["deep"]["er"], torch.from_numpy(numbers))
    found["f4"].add_(1)  # they may be written to


class Named:
    """A tensor of Paddle's outside of a dict of weights: its name and its numbers."""

    def __reduce__(self) -> Any:
        return tuple, (("linear_0.w_0", np.ones((2, 3), np.float32)),)


class Dense:
    """A tensor of Paddle's static graphs."""

    def __reduce__(self) -> Any:
        return eval, ("data", {"data": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", [Named, Dense])
def test_tensors_that_paddle_wraps_are_read(kind: type, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({"fc.weight": kind(), "fc.bias": kind()}, protocol=protocol))
    found = formats.published(tmp_path / "w.pdparams").state
    assert found.keys() == {"fc.weight", "fc.bias"} and torch.equal(found["fc.weight"], torch.ones(2, 3))


def test_numbers_that_numpy_has_not_are_what_paddle_means(tmp_path: Path) -> None:
    """bfloat16: the upper half of a float."""
    values = {name: torch.from_numpy(value).bfloat16() for name, value in arrays().items()}
    halves = {name: value.view(torch.int16).numpy().view(np.uint16) for name, value in values.items()}
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(halves, protocol=4))
    found = formats.published(tmp_path / "w.pdparams").state
    name = "db_conv_2.conv2_3.bn_ac_func2._conv.weight"
    assert torch.equal(found["features.denseblock1.denselayer3.conv2.weight"], values[f"densenet121.{name}"].float())


def test_paddles_own_densenet_is_read_too(tmp_path: Path) -> None:
    """Weights of ImageNet, without a prefix; their outputs are no findings."""
    found = {name.removeprefix("densenet121.").replace("out.0", "out"): value for name, value in arrays().items()}
    found |= {"out.weight": np.ones((1024, 1000), np.float32), "out.bias": np.ones(1000, np.float32)}
    (tmp_path / "densenet121.pdparams").write_bytes(pickle.dumps(found, protocol=2))
    read = formats.published(tmp_path / "densenet121.pdparams")
    assert (read.layout, read.name, read.findings, read.data) == ("paddle", "densenet121", (), "")
    assert read.state["classifier.weight"].shape == (1000, 1024)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "densenet121.db_conv_4.conv4_24.bn_ac_func2._batch_norm._mean",
            "1 .*(features.denseblock3.denselayer24.norm2.running_mean …)",
        ),
        ("+densenet121.db_conv_2.conv3_1.bn_ac_func1._conv.weight", "1 .*._conv.weight"),
        (
            "+densenet121.db_conv_2.conv2_7.bn_ac_func1._conv.weight",
            "1 .*(features.denseblock1.denselayer7.conv1.weight …)",
        ),
    ],
)
def test_a_weight_too_few_or_too_many_is_refused(
    change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = arrays()
    if change.startswith("+"):
        found[change[1:]] = np.ones((128, 64, 1, 1), np.float32)
    else:
        del found[change]
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(found, protocol=4))
    words = ["convert", str(tmp_path / "w.pdparams"), "--out", str(tmp_path / "out"), "--model", "densenet121"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert (
        has_facts(said, "w.pdparams", *says.split(".*")) and said.count("\n") == 1 and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_refused(
    file: Path, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = file.read_bytes()
    (tmp_path / "w.pdparams").write_bytes(data[: int(share * len(data))])
    assert cli.main(["convert", str(tmp_path / "w.pdparams"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert has_facts(said, f"ribcage: {tmp_path / 'w.pdparams'} cannot be read", "damaged") and said.count("\n") == 1


def test_findings_go_out_in_the_order_of_the_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = Supervised(Backbone("densenet121"), CHESTXRAY14[::-1])
    facts = ModelSpec("densenet121", CHESTXRAY14[::-1], (64, 64), 64, "pad", 0.53, 0.26)
    target = tmp_path / "新 folder" / "w.pdparams"
    assert formats.load_layout("paddle").export(method, facts, target) == target
    found = pickled.load_pickle(target)["densenet121.out.0.weight"]
    assert torch.equal(found.T.flip(0), method.head.weight)


@pytest.mark.filterwarnings("ignore")
def test_paddle_itself_reads_our_file_and_answers_the_same(tmp_path: Path, converted: Classifier) -> None:
    """And we read what it writes."""
    paddle = pytest.importorskip("paddle")
    network = paddle.vision.models.densenet121()
    network.out = paddle.nn.Sequential(paddle.nn.Linear(1024, 14), paddle.nn.Sigmoid())
    whole = paddle.nn.Layer()
    whole.densenet121 = network
    images = torch.randn(2, 3, 64, 64)
    for part in network.sublayers():
        if isinstance(part, paddle.nn.BatchNorm):
            part._momentum = 0.0
    with paddle.no_grad():  # norms take what they see
        network.train()(paddle.to_tensor(images.numpy()))
        expected = torch.from_numpy(network.eval()(paddle.to_tensor(images.numpy())).numpy())
    paddle.save(whole.state_dict(), str(tmp_path / "theirs.pdparams"))
    assert {name: tuple(value.shape) for name, value in whole.state_dict().items()} == {
        name: shape for name, (_, shape) in places().items()
    }
    words = ["convert", str(tmp_path / "theirs.pdparams"), "--out", str(tmp_path / "out"), "--layout", "paddle"]
    assert cli.main(words) == 0
    opened = load_classifier(tmp_path / "out")
    with torch.inference_mode():
        model: Any = opened.method.backbone.model
        said = opened.method.head(model.forward_head(model.forward_features(images), pre_logits=True)).sigmoid()
    torch.testing.assert_close(said, expected, atol=1e-4, rtol=1e-4)

    ours = formats.load_layout("paddle").export(opened.method, opened.spec, tmp_path / "ours.pdparams")
    read = paddle.load(str(ours))
    for value in whole.state_dict().values():
        value.set_value(paddle.zeros_like(value))
    assert whole.set_state_dict(read) == ([], [])
    with paddle.no_grad():
        again: Tensor = torch.from_numpy(network.eval()(paddle.to_tensor(images.numpy())).numpy())
    assert torch.equal(again, expected)
