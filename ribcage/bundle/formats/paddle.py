"""Paddle-CheXNet: a DenseNet in a .pdparams file, which is a pickle of NumPy arrays.

    densenet121.conv1_func._conv.weight                                   the first layer; its norm is _batch_norm.*
    densenet121.db_conv_2.conv2_1.bn_ac_func1._batch_norm._variance       block 1, layer 1, norm 1
    densenet121.tr_conv2_blk.conv_ac_func._conv.weight                    the transition after block 1
    densenet121.batch_norm._mean                                          the last norm
    densenet121.out.0.weight                                              (features, findings); followed by a sigmoid

https://github.com/jm12138/Paddle-CheXNet. Paddle's own DenseNets have no prefix `densenet121.`, and no
number after `out`. Neither reading nor writing requires Paddle.
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
"""Key under which Paddle stores a table of alternative weight names."""
MAX_LAYERS = 64
"""Number of layers in the largest block of Paddle's largest DenseNet."""


def layer_names() -> Iterator[tuple[str, str]]:
    """Pairs of Paddle's and timm's name of each layer."""
    yield "conv1_func._conv", "features.conv0"
    yield "conv1_func._batch_norm", "features.norm0"
    for block in range(1, 5):
        for layer in range(1, MAX_LAYERS + 1):
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


TIMM_NAMES = dict(layer_names()) | {"_mean": "running_mean", "_variance": "running_var"}
PADDLE_NAMES = {timm: paddle for paddle, timm in TIMM_NAMES.items()}


def recognises(names: Collection[str]) -> bool:
    """Whether the first layer and the last norm have Paddle's names."""
    return {"conv1_func._conv.weight", "batch_norm._mean"} <= {name.removeprefix(CHEXNET) for name in names}


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names; Paddle stores the weight of the last layer transposed."""
    renamed = renamed_weights(weights, timm_name)
    found = {name: paddle_tensor(value) for name, value in renamed.items()}
    if "classifier.weight" in found and found["classifier.weight"].ndim == 2:
        found["classifier.weight"] = found["classifier.weight"].t().contiguous()
    names = dict(zip(renamed, weights, strict=True))
    converted = {name: (names[name],) for name in found if found[name] is not renamed[name]}
    return replace(
        densenet_checkpoint(found), converted=converted, evidence=Evidence("names", "conv1_func and batch_norm._mean")
    )


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named model_paddle.pdparams."""
    found = {
        name: value for name, value in chexnet_weights(method, model, "paddle").items() if "num_batches" not in name
    }
    found["classifier.weight"] = found["classifier.weight"].t().contiguous()
    arrays = {paddle_name(name): value.numpy() for name, value in found.items()}
    file = target / "model_paddle.pdparams" if target.is_dir() else target
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.explained(file.parent, "Free some."), files.atomic(file) as part:
        part.write_bytes(pickled(arrays))
    return file


def timm_name(name: str) -> str:
    """timm's name of one of Paddle's weights; unchanged if Paddle's DenseNets have no such weight."""
    place, _, part = name.removeprefix(CHEXNET).rpartition(".")
    return f"{TIMM_NAMES[place]}.{TIMM_NAMES.get(part, part)}" if place in TIMM_NAMES else name


def paddle_name(name: str) -> str:
    """Paddle-CheXNet's name of one of timm's weights."""
    place, _, part = name.rpartition(".")
    return f"{CHEXNET}{PADDLE_NAMES[place]}.{PADDLE_NAMES.get(part, part)}"


def paddle_tensor(value: Tensor) -> Tensor:
    """Convert Paddle's bfloat16, which is stored as uint16 since NumPy has no such type, to float32."""
    return value.view(torch.bfloat16).float() if value.dtype == torch.uint16 else value


def pickled(arrays: dict[str, np.ndarray]) -> bytes:
    """The pickle as Paddle writes it. The array constructor gets the older of its two module names, which every NumPy
    version accepts."""
    content = {**arrays, TABLE: {name: name for name in arrays}}
    return pickle.dumps(content, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
