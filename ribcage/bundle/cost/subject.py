"""The model to profile: a bundle, or an architecture with random weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ribcage.bundle import onnx_export
from ribcage.bundle.io import Classifier, find_bundle, load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

Size = tuple[int, int]
FAMOUS = (
    ("eeea_net_c2", 14),
    ("ofa_595", 14),
    ("densenet121", 14),
    ("visformer_small", 14),
    ("visformer_small", 1000),
    ("autoformer_v2_base", 14),
    ("autoformer_v2_base", 1000),
)
"""Five models that papers compare, with the numbers of classes for which their counts are quoted."""


@dataclass(frozen=True)
class Subject:
    """A bundle, or an architecture with random weights, to profile."""

    name: str
    classes: int
    channels: int
    size: Size
    folder: Path | None = None
    """Folder of the bundle."""
    ensemble: bool = False
    """Whether the bundle is an ensemble of several models."""
    pool: str = ""
    """Pooling of the features, if not the architecture's default."""

    @classmethod
    def of(cls, folder: Path) -> "Subject":
        """The bundle in a folder or in a run."""
        model = ModelSpec.load(find_bundle(folder) / "model.json")
        if model.opaque:
            raise ValueError(f"{folder} is an opaque network, whose layers cannot be counted.")
        return cls(model.name, len(model.findings), model.channels, model.size, folder, bool(model.members), model.pool)

    @property
    def body(self) -> tuple[Any, ...]:
        """Everything except the number of classes: subjects with the same body differ only in the cost of the head."""
        return self.name, self.channels, self.size, self.folder, self.pool


def famous(size: Size) -> tuple[Subject, ...]:
    """FAMOUS with three channels, as published, then with one channel, as for radiographs."""
    three = tuple(Subject(name, classes, 3, size) for name, classes in FAMOUS)
    return (*three, *(replace(one, channels=1) for one in three if one.classes != 1000))


def built(one: Subject) -> Supervised:
    """A backbone and a linear head, as trained by `finetune`; random weights for an architecture."""
    if one.folder is not None:
        opened = load_bundle(one.folder)
        if not isinstance(opened, Classifier):
            raise ValueError(
                f"{opened.folder} is a detector, which cannot be profiled. Profile the architecture of its backbone, "
                f"{opened.spec.name}."
            )
        return opened.network("be profiled")
    backbone = Backbone(one.name, channels=one.channels, size=one.size, pool=one.pool)
    return Supervised(backbone, tuple(map(str, range(one.classes)))).eval()


def shapes(one: Subject) -> onnx_export.Network:
    """The network on the meta device, which takes no time to build; architectures that do not support it are built in
    full."""
    if one.ensemble:
        return onnx_export.Network(built(one))
    try:
        with torch.device("meta"):
            network = onnx_export.Network(built(replace(one, folder=None)))
            network(torch.zeros(1, one.channels, *one.size))
        return network
    except (RuntimeError, NotImplementedError):
        return onnx_export.Network(built(one))
