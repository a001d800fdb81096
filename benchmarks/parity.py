"""Outputs of converted weights, compared with those of the library they come from.

    python -m benchmarks.parity

Each library builds its model, estimates the batch-norm statistics on a few gray images, and writes its weights in its
usual form. The file is converted by `ribcage convert`, and both models are applied to the same images, each with its
own preprocessing. In single precision both round differently, and a deep network amplifies this; in double precision
only true differences would remain.

timm, torchvision and lightly come with the development tools; torchxrayvision, segmentation-models-pytorch,
byol-pytorch and paddlepaddle are included where they are installed.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats.reading.published_weights import MEAN, STD
from ribcage.bundle.io import load_bundle
from ribcage.methods.supervised import Supervised

SIDE = 128
FINDINGS = ("A", "B", "C")
KIND = [torch.float32]
"""Of the numbers."""
Case = tuple[Any, Tensor | np.ndarray, tuple[str, ...]]
"""What the file holds, what the program answers, more words for `convert`."""


def images(side: int = SIDE) -> Tensor:
    """(8, 1, S, S) in 0 … 1: clouds, bright at the edges too."""
    torch.manual_seed(0)
    clouds = [F.interpolate(torch.rand(8, 1, cells, cells), (side, side), mode="bilinear") for cells in (4, 12, 40)]
    return torch.stack(clouds).mean(0).to(KIND[0])


def colour(gray: Tensor, means: Any = MEAN, stds: Any = STD) -> Tensor:
    """Three times, normalised as for ImageNet."""
    m, s = (torch.tensor(values, dtype=KIND[0])[:, None, None] for values in (means, stds))
    return (gray - m) / s


def settled(net: Any, seen: Tensor) -> Any:
    """With norms that know the images, so that answers are neither tiny nor huge."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.momentum = None
    net.train()
    with torch.no_grad():
        net(seen.float())
    return net.eval().to(KIND[0])


def of_torchvision(name: str) -> Case:
    import torchvision

    torch.manual_seed(1)
    net = settled(torchvision.models.get_model(name, num_classes=3), colour(images()))
    return net.state_dict(), net(colour(images())), ("--findings", *FINDINGS)


def of_timm(name: str) -> Case:
    import timm

    torch.manual_seed(1)
    config: Any = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": SIDE} if config.fixed_input_size else {}
    net: Any = timm.create_model(name, num_classes=3, **sized)
    means, stds = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
    scale = ("--mean", *map(str, means), "--std", *map(str, stds))
    settled(net, colour(images(), means, stds))
    more = ("--model", name, "--size", str(SIDE), "--findings", *FINDINGS, *scale)
    return net.state_dict(), net(colour(images(), means, stds)), more


def of_chexnet() -> Case:
    """The file of 2017: on many devices, with dots before numbers, without counts of batches."""
    import torchvision

    torch.manual_seed(1)
    net = settled(torchvision.models.densenet121(num_classes=14), colour(images()))
    dotted = {re.sub(r"(denselayer\d+\.\w+)(\d)\.", r"\1.\2.", name): value for name, value in net.state_dict().items()}
    weights = {
        f"module.densenet121.{name.replace('classifier.', 'classifier.0.')}": value
        for name, value in dotted.items()
        if "num_batches" not in name
    }
    return {"state_dict": weights}, net(colour(images())), ()


def of_moco() -> Case:
    """MoCo's own modules: two encoders and a queue."""
    import torchvision

    torch.manual_seed(1)
    encoder: Any = settled(torchvision.models.resnet50(num_classes=128), colour(images()))
    weights = {f"module.encoder_{one}.{key}": value for one in "qk" for key, value in encoder.state_dict().items()}
    queue = {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    encoder.fc = nn.Identity()
    content = {"epoch": 3, "arch": "resnet50", "state_dict": weights | queue, "optimizer": {}}
    return content, encoder(colour(images())), ()


def of_lightly() -> Case:
    """lightly's heads beside torchvision's backbone, as its tutorials build and Lightning keeps them."""
    import torchvision
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

    torch.manual_seed(1)
    net: Any = torchvision.models.resnet18()
    module: Any = nn.Module()
    module.backbone = nn.Sequential(*list(net.children())[:-1])
    module.projection_head, module.prediction_head = BYOLProjectionHead(512, 64, 32), BYOLPredictionHead(32, 64, 32)
    settled(module.backbone, colour(images()))
    return {"state_dict": module.state_dict()}, module.backbone(colour(images())).flatten(1), ()


def of_byol() -> Case:
    """byol-pytorch's learner around torchvision's network."""
    import torchvision
    from byol_pytorch import BYOL

    torch.manual_seed(1)
    net: Any = torchvision.models.resnet18()
    learner = BYOL(net, image_size=SIDE, hidden_layer="avgpool")
    settled(net, colour(images()))
    net.fc = nn.Identity() if (answer := learner.state_dict()) else net.fc
    return answer, net(colour(images())), ()


def of_xrayvision() -> Case:
    """Its class, and its own way to bring pixels to -1024 … 1024."""
    import torchxrayvision as xrv

    torch.manual_seed(1)
    net = xrv.models.DenseNet()
    seen = torch.from_numpy(xrv.utils.normalize((images() * 255).numpy(), 255)).to(KIND[0])
    settled(net, seen)
    return net.state_dict(), net(seen), ("--size", str(SIDE))


def of_smp(name: str) -> Case:
    """A U-Net's encoder, as medical_mae pretrains it."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(1)
    net: Any = nn.Module()
    net.model = smp.Unet(encoder_name=name, encoder_weights=None, in_channels=3, classes=3)
    settled(net.model, colour(images()))
    last = net.model.encoder(colour(images()))[-1]
    last = F.relu(last) if name.startswith("densenet") else last  # its encoder ends before the ReLU
    return {"model": net.state_dict(), "epoch": 1, "args": argparse.Namespace(a=1)}, last.mean((2, 3)), ()


def of_paddle() -> Case:
    """Paddle-CheXNet's class; the file is Paddle's own."""
    import paddle
    from paddle.vision.models import densenet121

    paddle.seed(1)
    net = densenet121()
    net.out = paddle.nn.Linear(1024, 14)
    seen = paddle.to_tensor(colour(images()).numpy())
    for part in net.sublayers():
        if isinstance(part, paddle.nn.BatchNorm):
            part._momentum = 0.0
    net.train()
    with paddle.no_grad():
        net(seen)
        net.eval()
        answers = net(seen).numpy()
    prefixed = {f"densenet121.{name}".replace(".out.", ".out.0."): value for name, value in net.state_dict().items()}
    return lambda file: paddle.save(prefixed, str(file)), answers, ()


CASES: dict[str, tuple[str, Callable[[], Case]]] = {
    "torchvision, ResNet-50": ("torchvision", lambda: of_torchvision("resnet50")),
    "torchvision, DenseNet-121": ("torchvision", lambda: of_torchvision("densenet121")),
    "CheXNet file of 2017": ("torchvision", of_chexnet),
    "MoCo, ResNet-50": ("torchvision", of_moco),
    "timm, ViT-S/16": ("timm", lambda: of_timm("vit_small_patch16_224")),
    "timm, Swin-T": ("timm", lambda: of_timm("swin_tiny_patch4_window7_224")),
    "timm, ConvNeXt-T": ("timm", lambda: of_timm("convnext_tiny")),
    "timm, EfficientNet-B0": ("timm", lambda: of_timm("efficientnet_b0")),
    "lightly, BYOL on ResNet-18": ("lightly", of_lightly),
    "byol-pytorch, ResNet-18": ("byol_pytorch", of_byol),
    "TorchXRayVision, DenseNet-121": ("torchxrayvision", of_xrayvision),
    "segmentation-models-pytorch U-Net, DenseNet-121": ("segmentation_models_pytorch", lambda: of_smp("densenet121")),
    "segmentation-models-pytorch U-Net, ResNet-50": ("segmentation_models_pytorch", lambda: of_smp("resnet50")),
    "Paddle, DenseNet-121": ("paddle", of_paddle),
}


def ours(content: Any, more: tuple[str, ...], work: Path) -> Tensor:
    """What the converted model answers."""
    file, out = work / "weights", work / "bundle"
    content(file) if callable(content) else torch.save(content, file)
    found = formats.published(file)
    more = (*more, "--layout", found.layout, *(("--model", found.candidates[0]) if found.candidates else ()))
    with contextlib.redirect_stdout(io.StringIO()):
        if cli.main(["convert", str(file), "--out", str(out), *more]):
            raise SystemExit(f"ribcage convert {' '.join(more)} failed.")
    opened = load_bundle(out)
    model, method = opened.spec, cast(Supervised, opened.method)
    method.to(KIND[0])
    seen = ((images() - model.mean) / model.std).expand(-1, model.channels, -1, -1)
    return method.logits(seen) if model.findings else method.backbone(seen)


def main() -> None:
    """Build, convert, compare, print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print("| source | version | largest difference, float32 | largest difference, float64 | SD of the outputs |")
    print("|---|---|---|---|---|")
    for name, (library, build) in CASES.items():
        try:
            importlib.import_module(library)
        except ImportError:
            print(f"| {name} | not installed | – | – | – |", flush=True)
            continue
        away, spread = differing(build, torch.float32)
        twice = "–" if library == "paddle" else f"{differing(build, torch.float64)[0]:.0e}"  # Paddle has singles
        print(f"| {name} | {version(library)} | {away:.1e} | {twice} | {spread:.2f} |", flush=True)


def version(library: str) -> str:
    """Of the package that brings a module."""
    packages = importlib.metadata.packages_distributions().get(library, [library])
    return importlib.metadata.version(packages[0])


def differing(build: Callable[[], Case], kind: torch.dtype) -> tuple[float, float]:
    """The largest difference of an answer, and the spread of theirs."""
    KIND[0] = kind
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        content, theirs, more = build()
        wanted = torch.as_tensor(theirs)
        return float((ours(content, more, Path(work)) - wanted).abs().max()), float(wanted.std())


if __name__ == "__main__":
    main()
