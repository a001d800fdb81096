"""Paddle-CheXNet .pdparams: a pickle of NumPy arrays, a DenseNet under the names of Paddle.

    densenet121.conv1_func._conv.weight                                   the first layer; _batch_norm.* is its norm
    densenet121.db_conv_2.conv2_1.bn_ac_func1._batch_norm._variance       block 1, layer 1, norm 1
    densenet121.tr_conv2_blk.conv_ac_func._conv.weight                    the transition behind block 1
    densenet121.batch_norm._mean                                          the last norm
    densenet121.out.0.weight                                              (features, findings); a sigmoid is behind it

https://github.com/jm12138/Paddle-CheXNet. Paddle's own DenseNets have no `densenet121.` before all, and `out` without a
number. Neither reading nor writing needs Paddle.
"""

import pickle
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ribcage.bundle.formats.chexnet import chexnet_weights, densenet_checkpoint, renamed_weights
from ribcage.bundle.formats.dtforcxr8 import CHEXNET
from ribcage.bundle.formats.reading.published_weights import Evidence, Published
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.runtime import files

SOURCE = "https://github.com/jm12138/Paddle-CheXNet"
LICENCE = "Apache-2.0; trained on ChestX-ray14"
TABLE = "StructuredToParameterName@@"
"""Under this name Paddle keeps its other names of the same weights."""
LAYERS = 64
"""A block of Paddle's largest DenseNet has so many."""


def layer_names() -> Iterator[tuple[str, str]]:
    """What Paddle calls a layer, and what timm does."""
    yield "conv1_func._conv", "features.conv0"
    yield "conv1_func._batch_norm", "features.norm0"
    for block in range(1, 5):
        for layer in range(1, LAYERS + 1):
            here, there = (
                f"db_conv_{block + 1}.conv{block + 1}_{layer}",
                f"features.denseblock{block}.denselayer{layer}",
            )
            for number in (1, 2):
                yield f"{here}.bn_ac_func{number}._batch_norm", f"{there}.norm{number}"
                yield f"{here}.bn_ac_func{number}._conv", f"{there}.conv{number}"
        yield f"tr_conv{block + 1}_blk.conv_ac_func._batch_norm", f"features.transition{block}.norm"
        yield f"tr_conv{block + 1}_blk.conv_ac_func._conv", f"features.transition{block}.conv"
    yield "batch_norm", "features.norm5"
    yield "out", "classifier"
    yield "out.0", "classifier"


OURS = dict(layer_names()) | {"_mean": "running_mean", "_variance": "running_var"}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def recognises(names: Collection[str]) -> bool:
    """Whether the first layer and the last norm have the names that Paddle's DenseNets have."""
    return {"conv1_func._conv.weight", "batch_norm._mean"} <= {name.removeprefix(CHEXNET) for name in names}


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names; Paddle multiplies features by the last layer from the other side."""
    given = renamed_weights(weights, ours)
    found = {name: paddle_tensor(value) for name, value in given.items()}
    if "classifier.weight" in found and found["classifier.weight"].ndim == 2:
        found["classifier.weight"] = found["classifier.weight"].t().contiguous()
    names = dict(zip(given, weights, strict=True))
    rebuilt = {name: names[name] for name in found if found[name] is not given[name]}
    return replace(
        densenet_checkpoint(found), rebuilt=rebuilt, evidence=Evidence("names", "conv1_func and batch_norm._mean")
    )


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as model_paddle.pdparams."""
    found = {
        name: value for name, value in chexnet_weights(method, model, "paddle").items() if "num_batches" not in name
    }
    found["classifier.weight"] = found["classifier.weight"].t().contiguous()
    arrays = {theirs(name): value.numpy() for name, value in found.items()}
    file = target / "model_paddle.pdparams" if target.is_dir() else target
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.explained(file.parent, "Free some."), files.atomic(file) as part:
        part.write_bytes(pickled(arrays))
    return file


def ours(name: str) -> str:
    """One of Paddle's names as timm has it; the same when its DenseNets have no such."""
    place, _, part = name.removeprefix(CHEXNET).rpartition(".")
    return f"{OURS[place]}.{OURS.get(part, part)}" if place in OURS else name


def theirs(name: str) -> str:
    """One of timm's names as Paddle-CheXNet has it."""
    place, _, part = name.rpartition(".")
    return f"{CHEXNET}{THEIRS[place]}.{THEIRS.get(part, part)}"


def paddle_tensor(value: Tensor) -> Tensor:
    """Paddle keeps bfloat16, which NumPy has not, as whole numbers of two bytes."""
    return value.view(torch.bfloat16).float() if value.dtype == torch.uint16 else value


def pickled(arrays: dict[str, np.ndarray]) -> bytes:
    """As Paddle writes it, for NumPy of any age: what begins an array has lived under two names, and both know this."""
    content = {**arrays, TABLE: {name: name for name in arrays}}
    return pickle.dumps(content, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
