"""Compatibility of methods, networks and datasets, determined by trying: the table in the README."""

import tempfile
from functools import cache
from pathlib import Path

import trees
from ranks import images, made

from ribcage import methods
from ribcage.data import datasets
from ribcage.data.index import Index

NETWORKS = {
    "ResNet, DenseNet …": "test_resnet",
    "EEEA-Net, OFA": "eeea_net_c2",
    "ViT, DeiT": "test_vit",
    "Visformer": "visformer_tiny",
    "Swin, AutoFormerV2": "autoformer_v2_tiny",
}
"""Kinds of networks → the model that is tried."""


def called(name: str) -> str:
    """The command of a method."""
    verb = methods.load_method(name).command
    return f"{verb} {name}" if verb == "pretrain" else verb


@cache
def table() -> str:
    """✓ where a method takes a step on a network, and where a dataset has the labels or boxes that it needs."""
    known = {name: _has(name) for name in datasets.dataset_names()}
    rows = [f"| | {' | '.join([*NETWORKS, *(f'`{name}`' for name in known)])} |"]
    rows.append("|---|" + ":-:|" * (len(NETWORKS) + len(known)))
    for name in methods.method_names():
        kind = methods.load_method(name)
        needs = "boxes" if kind.command == "localise" else "findings" if kind.from_labels else "images"
        cells = [_takes_a_step(name, network) for network in NETWORKS.values()]
        marks = ["✓" if cell else "–" for cell in cells]
        marks += ["?" if has is None else "✓" if needs in has else "–" for has in known.values()]
        rows.append(f"| `{called(name)}` | {' | '.join(marks)} |")
    return "\n".join(rows)


def _takes_a_step(name: str, network: str) -> bool:
    """Whether there is a loss with a gradient; what does not fit is refused in one line."""
    size = (32, 32)
    try:
        method = made(name, network, size=size)
        method(images(method, size=size, count=8)).loss.backward()
    except ValueError as error:
        assert "needs" in str(error)
        return False
    return any(weight.grad is not None for weight in method.parameters())


def _has(name: str) -> tuple[str, ...] | None:
    """What can be learnt from a dataset; None where it has no synthetic tree."""
    if trees.builder(name) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        index = _index(name, Path(folder) / "data")
    has = {"images": len(index), "findings": len(index.findings), "boxes": len(index.boxes)}
    return tuple(what for what, count in has.items() if count)


def _index(name: str, folder: Path) -> Index:
    build = trees.builder(name)
    assert build is not None
    root = build(folder)
    if name == "phantom":
        return datasets.index(name, images=20)
    if name == "folder":
        trees.text(folder / "boxes.csv", "file,finding,x,y,width,height", "images/1_0.png,Mass,1,1,9,9")
        return datasets.index(name, root, boxes="boxes.csv")
    return datasets.index(name, root)
