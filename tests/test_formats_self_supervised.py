"""Checkpoints of self-supervised training and of fine-tuning from it: every weight arrives, and features are the same.

Each file is written here by the modules of its program, in a few lines with torchvision's networks.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from refusals import has_facts
from test_convert import line, ours
from test_formats_writing import facts, gray, stirred, theirs
from test_formats_writing import ours as seen
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage import cli
from ribcage.bundle import conversion, formats
from ribcage.bundle.formats.reading.published_weights import DENSENETS, RESNETS
from ribcage.bundle.io import load_classifier
from ribcage.data.findings import CHEXPERT5
from ribcage.methods import Method
from ribcage.methods.byol import BYOL
from ribcage.methods.moco import MoCo
from ribcage.methods.supcon import SupCon
from ribcage.methods.swav import SwAV
from ribcage.models.backbone import Backbone

State = dict[str, Tensor]
PARTS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
"""Where torchvision's ResNet has its parts when it is cut into a row."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("权重 w")


# ---- networks whose weights all differ, and files of them


def network(name: str = "resnet18", small: bool = False) -> Any:
    """torchvision's own, its norms no identity; small: with the stem for CIFAR. Its last layer gives features."""
    torch.manual_seed(2)
    net: Any = torchvision.models.get_model(name)
    if small:
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.1)
            nn.init.normal_(part.bias, 0, 0.1)
    return stirred(net)


def cut(net: Any) -> Any:
    """Without the last layer."""
    net = copy.deepcopy(net)
    setattr(net, "fc" if hasattr(net, "fc") else "classifier", nn.Identity())
    return net


def trunk(net: nn.Module) -> State:
    return {name: value for name, value in net.state_dict().items() if not name.startswith(("fc.", "classifier."))}


def numbered(net: nn.Module) -> State:
    """The names in `nn.Sequential(*list(net.children())[:-1])`, written out by hand."""
    split = {name: name.split(".", 1) for name in trunk(net)}
    if "features" in {first for first, _ in split.values()}:
        return {f"0.{rest}": net.state_dict()[name] for name, (_, rest) in split.items()}
    return {f"{PARTS[first]}.{rest}": net.state_dict()[name] for name, (first, rest) in split.items()}


def shortcuts(state: State) -> State:
    return {name.replace(".downsample.", ".shortcut."): value for name, value in state.items()}


def noise(*shapes: tuple[str, tuple[int, ...]]) -> State:
    """Heads and copies, which nobody is to take."""
    return {name: torch.randn(shape) for name, shape in shapes}


def before(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def other(state: State) -> State:
    """The copy that follows: of the same names, of other numbers; its beginning is enough, since nobody reads it."""
    return {name: state[name] + 1 for name in list(state)[:6]}


def moco(net: nn.Module, *, mlp: bool = False, last: str = "fc") -> dict[str, Any]:
    width = 1024 if last == "classifier" else 512
    shapes = [(f"{last}.0.weight", (width, width)), (f"{last}.0.bias", (width,)), (f"{last}.2.weight", (128, width))]
    shapes = [*shapes, (f"{last}.2.bias", (128,))] if mlp else [(f"{last}.weight", (128, width)), (f"{last}.bias", (128,))]  # fmt: skip
    encoder = trunk(net) | noise(*shapes)
    state = before("module.encoder_q.", encoder) | before("module.encoder_k.", other(encoder))
    state |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.03, momentum=0.9).state_dict()
    return {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": optimizer}


def drmodel(net: nn.Module) -> State:
    return before("features.", numbered(net)) | noise(("cls.weight", (5, 512)), ("cls.bias", (5,)))


def byol_pytorch(net: nn.Module, start: str = "") -> State:
    head = noise(("0.weight", (32, 512)), ("0.bias", (32,)), ("1.weight", (32,)), ("3.weight", (8, 32)))
    whole = dict(net.state_dict())  # with the last layer
    state = before("net.", whole) | before("online_encoder.net.", whole) | before("online_encoder.projector.", head)
    state |= before("target_encoder.net.", other(whole)) | before("target_encoder.projector.", other(head))
    return before(start, state | before("online_predictor.", head))


def byol_yao(net: nn.Module) -> dict[str, Any]:
    head = noise(("l1.weight", (32, 512)), ("l1.bias", (32,)), ("bn1.running_mean", (32,)), ("l2.weight", (8, 32)))
    online = before("encoder.", numbered(net)) | before("projetion.", head)
    state = before("online_network.", online) | before("target_network.", other(online))
    state |= before("predictor.predictor.", head)
    config = {"model": {"backbone": {"type": "resnet18"}}}
    return {"config": config, "epoch": 3, "steps": 9, "model": before("module.", state), "optimizer": {}, "amp": {}}


def byol_silva(net: nn.Module) -> State:
    return before("encoder.", numbered(net)) | noise(("projetion.net.0.weight", (32, 512)))


def swav(net: nn.Module) -> State:
    head = [("projection_head.0.weight", (32, 512)), ("projection_head.1.running_var", (32,))]
    extra = noise(*head, ("projection_head.3.weight", (8, 32)), ("prototypes.weight", (30, 8)))
    return before("module.", trunk(net) | extra)


def supcontrast(net: nn.Module, start: str = "encoder.", head: str = "head.0") -> dict[str, Any]:
    state = before(start, shortcuts(trunk(net))) | noise((f"{head}.weight", (512, 512)), (f"{head}.bias", (512,)))
    opt = argparse.Namespace(model="resnet18", dataset="path", lr_decay_epochs=[700, 800], cosine=True)
    return {"opt": opt, "model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 100}


def lightly(backbone: State, *extra: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    state = before("backbone.", backbone) | before("backbone_momentum.", other(backbone))
    state |= noise(("projection_head.layers.0.weight", (32, 512)), ("prediction_head.layers.0.weight", (8, 32)), *extra)
    return {"epoch": 9, "global_step": 90, "pytorch-lightning_version": "2.5.0", "state_dict": state, "loops": {}}


def small_lightly(net: nn.Module) -> State:
    """lightly's own ResNets have neither a ReLU nor a pooling among their parts."""
    places = dict(zip(PARTS, "012345", strict=True))
    split = {name: name.split(".", 1) for name in trunk(net)}
    return shortcuts({f"{places[first]}.{rest}": net.state_dict()[name] for name, (first, rest) in split.items()})


def solo(net: nn.Module) -> dict[str, Any]:
    state = before("backbone.", trunk(net)) | before("momentum_backbone.", other(trunk(net)))
    return {"state_dict": state | noise(("projector.0.weight", (32, 512)), ("classifier.weight", (9, 512)))}


FILES: dict[str, tuple[str, str, bool, Callable[[Any], Any]]] = {
    "moco v1": ("moco", "resnet18", False, moco),
    "moco v2": ("moco", "resnet18", False, lambda net: moco(net, mlp=True)),
    "moco of a densenet": ("moco", "densenet121", False, lambda net: moco(net, last="classifier")),
    "drmodel": ("drmodel", "resnet18", False, drmodel),
    "byol-pytorch": ("byol", "resnet18", False, byol_pytorch),
    "byol-pytorch in Lightning": ("byol", "resnet18", False, lambda net: {"state_dict": byol_pytorch(net, "learner.")}),
    "BYOL-PyTorch": ("byol", "resnet18", False, byol_yao),
    "PyTorch-BYOL": ("byol", "resnet18", False, byol_silva),
    "swav bare": ("swav", "resnet18", False, swav),
    "swav checkpoint": ("swav", "resnet18", False, lambda net: {"epoch": 8, "state_dict": swav(net)}),
    "supcon": ("supcontrast", "resnet18", True, supcontrast),
    "supcon on many devices": ("supcontrast", "resnet18", True, lambda net: supcontrast(net, "encoder.module.")),
    "supce with torchvision's stem": ("supcontrast", "resnet18", False, lambda net: supcontrast(net, head="fc")),
    "lightly by number": ("lightly", "resnet18", False, lambda net: lightly(numbered(net))),
    "lightly's own resnet": ("lightly", "resnet18", True, lambda net: lightly(small_lightly(net))),
    "lightly of a densenet": ("lightly", "densenet121", False, lambda net: lightly(numbered(net))),
    "lightly by name": ("lightly", "resnet18", False, lambda net: lightly(trunk(net))),
    "solo-learn": ("lightly", "resnet18", False, solo),
}
SLOW = ("moco v1", "byol-pytorch in Lightning", "swav bare", "supcon on many devices", "lightly of a densenet")
"""Those that another is like."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FILES],
)
def given(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Any, Path]:
    """A layout, a network, and the file of it."""
    layout, name, small, write = FILES[request.param]
    net, file = network(name, small), folder / f"{request.param}.pth"
    torch.save(write(net), file)
    return layout, net, file


def test_every_weight_arrives_and_features_are_the_same(given: tuple[str, Any, Path]) -> None:
    """Nothing is random: the model has no weight that the network has not, and gives what it gives."""
    layout, net, file = given
    found = formats.published(file)
    assert found.layout == layout
    made = conversion.converted_model(file, found, agreed=True)
    assert made.rows == (5 if layout == "drmodel" else 0)  # of a last layer
    same_answers(made, net, file.stem)


def same_answers(made: Any, net: Any, name: str) -> None:
    """The weights and the features of what was converted are the network's."""
    found = made.method.backbone.model.state_dict()
    assert found.keys() == trunk(net).keys()
    assert not [name for name, value in trunk(net).items() if not torch.equal(found[name], value)]
    small = net.conv1.kernel_size == (3, 3) if hasattr(net, "conv1") else False
    plain = "densenet121" if hasattr(net, "features") else "resnet18"
    assert made.model.name == ("resnet18_small" if small else plain)
    with torch.inference_mode():
        features, expected = made.method.backbone(ours(gray(), made.model)), cut(net)(theirs(gray()))
    print(f"{name}: {(features - expected).abs().max():.1e} of {expected.std():.2f}", file=sys.stderr)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("moco v2", "module.encoder_q.bn1.running_var"),
        ("drmodel", "features.7.1.bn2.running_var"),
        ("byol-pytorch", "online_encoder.net.layer2.0.bn1.running_mean"),
        ("BYOL-PyTorch", "module.online_network.encoder.1.running_mean"),
        ("swav checkpoint", "module.layer4.1.bn2.running_var"),
        ("supcon", "encoder.layer2.0.shortcut.1.running_var"),
        ("lightly by number", "backbone.5.0.downsample.1.running_mean"),
    ],
)
def test_a_file_that_lacks_a_weight_or_is_cut_off_is_refused_in_a_line(
    name: str, lost: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it is a statistic of batch norm, which torch could initialise."""
    _, _, small, write = FILES[name]
    content, file = write(network(small=small)), folder / "less.pth"
    del next((content[one] for one in ("state_dict", "model") if one in content), content)[lost]
    torch.save(content, file)
    said = line(["convert", str(file), "--out", str(folder / "less")], capsys)
    assert has_facts(said, 99, 100, 1) and lost.rsplit(".", 1)[1] in said
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)
    said = line(["convert", str(file), "--out", str(folder / "less")], capsys)
    assert has_facts(said, "less.pth cannot be read", "damaged")
    assert not (folder / "less").exists()


# ---- one by one


def recognised(state: State, folder: Path) -> Any:
    torch.save(state, folder / "r.pth")
    return formats.published(folder / "r.pth")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("resnet34", "resnext50_32x4d", "densenet169") else pytest.mark.slow)
        for name in (*RESNETS, *DENSENETS)
    ],
)
def test_any_resnet_or_densenet_of_torchvision_is_told_by_its_shapes(name: str) -> None:
    with torch.device("meta"):
        net = torchvision.models.get_model(name)
        state = before("encoder_q.", net.state_dict()) | before("encoder_k.", net.state_dict())
    found = formats.layouts()["moco"].published(state)
    assert found.name == name
    assert len(found.unused) == len(net.state_dict()) + 2  # the key encoder, and the query's last layer


def test_a_bare_backbone_without_its_last_layer_is_torchvisions(folder: Path) -> None:
    """As LoVT's baselines keep it in backbone_weights.pt."""
    found = recognised(trunk(network()), folder)
    assert (found.layout, found.name, found.unused) == ("torchvision", "resnet18", ())


def test_a_fine_tuned_drmodel_answers_the_five_of_the_competition(folder: Path) -> None:
    net, file = network(), folder / "dr.pth"
    state = drmodel(net)
    torch.save(state, file)
    assert cli.main(["convert", str(file), "--out", str(folder / "dr"), "--layout", "drmodel"]) == 0
    opened = load_classifier(folder / "dr")
    assert opened.spec.findings == CHEXPERT5 == ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion")
    assert (opened.spec.size, opened.spec.stored, opened.spec.fit) == ((512, 512), 512, "squash")
    assert opened.spec.data[0].name == "CheXpert"
    with torch.inference_mode():
        said = cut(net)(theirs(gray())) @ state["cls.weight"].T + state["cls.bias"]
        torch.testing.assert_close(opened.method.logits(ours(gray(), opened.spec)), said, atol=1e-4, rtol=1e-5)


def test_a_drmodel_of_other_answers_is_not_given_names(folder: Path) -> None:
    state = drmodel(network()) | noise(("cls.weight", (4, 512)), ("cls.bias", (4,)))
    found = recognised(state, folder)
    assert found.layout == "drmodel" and found.findings == () and found.data == ""


@pytest.mark.parametrize("name", ["moco v1", "drmodel", "byol-pytorch", "swav bare", "supcon"])
def test_a_weight_that_no_layout_knows_is_not_dropped_in_silence(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, _, small, write = FILES[name]
    content = write(network(small=small))
    inner = next((content[one] for one in ("state_dict", "model") if one in content), content)
    inner["adapter.weight"] = torch.zeros(3)
    torch.save(content, folder / "more.pth")
    assert formats.published(folder / "more.pth").layout == layout
    said = line(["convert", str(folder / "more.pth"), "--out", str(folder / "more")], capsys)
    assert has_facts(said, 1, "(adapter.weight …)")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("byol-pytorch", "https://github.com/lucidrains/byol-pytorch"),
        ("BYOL-PyTorch", "https://github.com/yaox12/BYOL-PyTorch"),
        ("PyTorch-BYOL", "https://github.com/sthalles/PyTorch-BYOL"),
    ],
)
def test_of_three_programs_for_byol_the_right_one_is_named(name: str, source: str, folder: Path) -> None:
    found = recognised(FILES[name][3](network()), folder)
    assert (found.layout, found.source) == ("byol", source)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_deep_resnets_with_the_small_stem_are_read(name: str, folder: Path) -> None:
    """SupContrast's own default is the second."""
    found = recognised(supcontrast(network(name, small=True))["model"], folder)
    assert (found.name, found.size) == (f"{name}_small", (32, 32))


def test_images_for_the_small_stem_are_small(folder: Path) -> None:
    small, large = (recognised(supcontrast(network(small=small))["model"], folder) for small in (True, False))
    assert (small.size, small.stored) == ((32, 32), 32) and (large.size, large.stored) == ((224, 224), 256)


# ---- the programs themselves


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The `srun` command is available")  # where SLURM is installed
def test_a_checkpoint_that_lightly_and_lightning_write_is_read(folder: Path) -> None:
    """MoCo with a memory bank in its loss, saved by Lightning's own trainer."""
    pytest.importorskip("lightly")
    pl = pytest.importorskip("pytorch_lightning")
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(net.children())[:-1])
            self.projection_head = MoCoProjectionHead(512, 64, 16)
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            self.criterion = NTXentLoss(memory_bank_size=(32, 16))
            self.save_hyperparameters({"lr": 0.06})

    net, file = network(), folder / "lightning.ckpt"
    module = Module()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(file)
    same_answers(conversion.converted_model(file, formats.published(file)), net, "lightning")


def test_a_file_that_byol_pytorch_writes_is_read(folder: Path) -> None:
    byol_pytorch = pytest.importorskip("byol_pytorch")
    net, file = network(), folder / "lucidrains.pt"
    with torch.random.fork_rng():
        learner = byol_pytorch.BYOL(net, image_size=32, hidden_layer="avgpool").eval()
    torch.save(learner.state_dict(), file)
    same_answers(conversion.converted_model(file, formats.published(file)), net, "byol-pytorch itself")


# ---- and out again


def made(kind: Any, name: str = "resnet18", findings: tuple[str, ...] = (), **options: Any) -> Any:
    torch.manual_seed(0)
    return stirred(kind(Backbone(name), findings, **options))


def check_back(method: Method, file: Path, layout: str) -> None:
    """Our file is read as that layout, and its features are the method's."""
    found = formats.published(file)
    assert found.layout == layout
    made = conversion.converted_model(file, found)
    own, new = (one.backbone.model.state_dict() for one in (method, made.method))
    assert [name for name, value in own.items() if not torch.equal(new[name], value)] == ["conv1.weight"]
    with torch.inference_mode():
        back = made.method.backbone(ours(gray(), made.model))
        torch.testing.assert_close(back, method.backbone(seen(gray())), atol=1e-4, rtol=1e-3)


def head(width: int, hidden: int, dim: int) -> nn.Sequential:
    """Of SwAV and BYOL."""
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim))


def test_swavs_own_network_takes_our_file(tmp_path: Path) -> None:
    method = made(SwAV, prototypes=30, hidden=32, dim=8, crops=0)
    file = formats.load_layout("swav").export(method, facts("resnet18"), tmp_path)
    assert file.name == "resnet18_xray.pth.tar"
    content = torch.load(file, weights_only=True)
    assert content["epoch"] == 7 and all(name.startswith("module.") for name in content["state_dict"])
    net: Any = cut(torchvision.models.resnet18())
    net.projection_head, net.prototypes = head(512, 32, 8), nn.Linear(8, 30, bias=False)
    net.load_state_dict({name.removeprefix("module."): value for name, value in content["state_dict"].items()})
    with torch.inference_mode():
        z = F.normalize(net.eval().projection_head(net(theirs(gray()))), dim=1)
        own = F.normalize(method.head(method.backbone(seen(gray()))), dim=1)
        expected = own @ method.prototypes.weight.T
        torch.testing.assert_close(net.prototypes(z), expected, atol=1e-4, rtol=1e-3)
    check_back(method, file, "swav")


class Wrapped(nn.Module):
    """What byol-pytorch calls an encoder."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.projector = net, head(512, 32, 8)


class Learner(nn.Module):
    """The skeleton of byol-pytorch's learner."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.online_encoder, self.target_encoder = Wrapped(net), Wrapped(copy.deepcopy(net))
        self.online_predictor = head(8, 32, 8)


def test_byol_pytorchs_own_learner_takes_our_file(tmp_path: Path) -> None:
    method = made(BYOL, hidden=32, dim=8)
    nn.init.normal_(method.target[1][0].bias)  # the target is another
    nn.init.normal_(method.target[0].model.bn1.bias)
    file = formats.load_layout("byol").export(method, facts("resnet18"), tmp_path)
    assert file.name == "resnet18_xray.pt"
    learner = Learner(cut(torchvision.models.resnet18())).eval()
    learner.load_state_dict(torch.load(file, weights_only=True))
    with torch.inference_mode():
        online = learner.online_encoder.projector(learner.net(theirs(gray())))
        target = learner.target_encoder.projector(learner.target_encoder.net(theirs(gray())))
        torch.testing.assert_close(learner.online_predictor(online), method._predicted(seen(gray())), atol=1e-4, rtol=1e-3)  # fmt: skip
        torch.testing.assert_close(target, method._targeted(seen(gray())), atol=1e-4, rtol=1e-3)
    check_back(method, file, "byol")


def test_supcontrasts_own_network_takes_our_file(tmp_path: Path) -> None:
    method = made(SupCon, "resnet18_small", ("Mass",))
    file = formats.load_layout("supcontrast").export(method, facts("resnet18_small"), tmp_path)
    assert file.name == "last.pth"
    state = torch.load(file, weights_only=True)["model"]
    assert "encoder.module.layer2.0.shortcut.1.running_mean" in state
    plain = {name.replace("module.", "").replace(".shortcut.", ".downsample."): value for name, value in state.items()}
    net: Any = nn.Module()  # as its program reads it on one device
    net.encoder, net.head = cut(network(small=True)), nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    net.load_state_dict(plain)
    with torch.inference_mode():
        found, expected = net.eval().head(net.encoder(theirs(gray()))), method.head(method.backbone(seen(gray())))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    check_back(method, file, "supcontrast")


@pytest.mark.parametrize(
    ("layout", "method", "says"),
    [
        ("swav", lambda: made(MoCo, queue=8), "swav.*MoCo"),
        ("byol", lambda: made(MoCo, queue=8), "byol.*MoCo"),
        ("supcontrast", lambda: made(MoCo, queue=8), "supcontrast.*MoCo"),
        ("supcontrast", lambda: made(SupCon, findings=("Mass",)), "3 × 3.*resnet18"),
    ],
    ids=["swav", "byol", "supcontrast", "supcontrast of another stem"],
)
def test_a_method_without_what_a_layout_holds_is_refused(layout: str, method: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says) as error:
        formats.load_layout(layout).export(method(), facts("resnet18"), tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_swavs_layout_is_of_resnets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ResNets.*densenet121"):
        formats.load_layout("swav").export(made(SwAV, "densenet121", crops=0), facts("densenet121"), tmp_path)
