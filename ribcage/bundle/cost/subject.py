"""The model that is profiled: a bundle, or an architecture with random weights."""

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
"""Five models that are compared with each other, with the numbers of classes that their counts are quoted for."""


@dataclass(frozen=True)
class Subject:
    """What is profiled: a bundle, or a model of this name with random weights."""

    name: str
    classes: int
    channels: int
    size: Size
    folder: Path | None = None
    """Of the bundle."""
    pool: str = ""
    """How features are pooled, if not as the architecture does by itself."""

    @classmethod
    def of(cls, folder: Path) -> "Subject":
        """The bundle in a folder or in a run."""
        model = ModelSpec.load(find_bundle(folder) / "model.json")
        return cls(model.name, len(model.findings), model.channels, model.size, folder, model.pool)

    @property
    def body(self) -> tuple[Any, ...]:
        """All but how many classes there are: what costs as much but for its head."""
        return self.name, self.channels, self.size, self.folder, self.pool


def famous(size: Size) -> tuple[Subject, ...]:
    """FAMOUS in three channels, as they were published; then in one, as radiographs are."""
    three = tuple(Subject(name, classes, 3, size) for name, classes in FAMOUS)
    return (*three, *(replace(one, channels=1) for one in three if one.classes != 1000))


def built(one: Subject) -> Supervised:
    """The backbone and a linear head, as `finetune` trains them; random weights for a name."""
    if one.folder is not None:
        opened = load_bundle(one.folder)
        if not isinstance(opened, Classifier):
            raise ValueError(f"{opened.folder} is a detector: profile its backbone, {opened.spec.name}.")
        return opened.method
    backbone = Backbone(one.name, channels=one.channels, size=one.size, pool=one.pool)
    return Supervised(backbone, tuple(map(str, range(one.classes)))).eval()


def shapes(one: Subject) -> onnx_export.Network:
    """The same with shapes only, no numbers: made in no time. Where an architecture refuses, the whole."""
    try:
        with torch.device("meta"):
            network = onnx_export.Network(built(replace(one, folder=None)))
            network(torch.zeros(1, one.channels, *one.size))
        return network
    except (RuntimeError, NotImplementedError):
        return onnx_export.Network(built(one))
