"""Pretrained weights: where they are, what of a file fits a model, and what became of each weight."""

import inspect
import math
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ribcage.models.catalogue import pretrained_config

IMAGENET = "imagenet"
MOST_MEAN, LEAST_STD, MOST_STD = 1e3, 1e-6, 1e3
"""Limits on normalisation of pixels in 0 … 1."""
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""Names of timm's functions that convert published weights to its own names."""
UNKNOWN, UNFIT = "the model has no such weight", "shape differs from that in the model"
OMITTED = "dropped or split by timm's converter for this model"
"""Reasons why a weight in a file is not in the model."""


@dataclass(frozen=True)
class Weights:
    """Weights under timm's names, and the normalisation of images that they expect."""

    state: dict[str, Tensor]
    mean: tuple[float, ...] = ()
    """Mean of each channel, subtracted from pixels in 0 … 1; (): timm's value for the model."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel, by which pixels are then divided."""
    antialias: bool = True
    """Whether position embeddings of another image size are interpolated with antialiasing, as timm does."""

    def channels(self, stem: str | list[str]) -> int:
        """Number of image channels that the weights expect."""
        first = self.state.get(f"{stem}.weight")
        return 1 if first is not None and first.ndim == 4 and first.shape[1] == 1 else 3


@dataclass(frozen=True)
class Coverage:
    """Which weights of a model a file has, and which of the file the model has."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """Weights of the model that the file lacks."""
    unexpected: tuple[str, ...]
    """Weights of the file that the model lacks."""
    other: tuple[str, ...]
    """Weights of both that differ in shape."""
    used: frozenset[str] = frozenset()
    """Weights of the file, under its own names, that were loaded into the model."""
    dropped: frozenset[str] = frozenset()
    """Weights of the file that timm's converter for this model drops or splits."""
    unfit: frozenset[str] = frozenset()
    """Weights of the file that have another shape in the model."""
    norm_after_pooling: bool = False
    """Whether the last norm of the file, applied to every token, is applied to the mean of the tokens in the model."""

    @property
    def lost(self) -> tuple[str, ...]:
        """Weights of the model that would stay random."""
        return self.missing + self.other

    def reason_unused(self, name: str) -> str:
        """Why a weight of the file was not loaded; "" if it was."""
        if name in self.used:
            return ""
        return OMITTED if name in self.dropped else UNFIT if name in self.unfit else UNKNOWN

    def __str__(self) -> str:
        kinds = [(self.missing, "are missing"), (self.other, "have a different shape")]
        return ", ".join(f"{len(names)} {what} ({names[0]} …)" for names, what in kinds if names)


def pretrained_model(
    name: str, init: str, options: dict[str, Any], read: Callable[[Path], Weights]
) -> tuple[Any, Any, Coverage | None]:
    """The model with pretrained weights, and timm's configuration for these; an error if any would stay random."""
    config = pretrained_config(name)
    file = _on_disk(config) if init == IMAGENET else Path(init)
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"{init} does not exist.")
    if file is None and not _answers(config):
        raise OSError(
            f"The pretrained weights of {name} are not available: {_wanted(config)} is not on disk and cannot be "
            "downloaded. "
            "Download it elsewhere and pass --init FILE, or train without --init."
        )
    if file is None or file.suffix == ".npz":
        return _loaded(name, file, options), config, None
    given = read(file)
    model = random_model(name, given.channels(config.first_conv), options)
    found = laid_over(model, name, given.state, str(file), antialias=given.antialias)
    if found.lost:
        raise ValueError(f"The weights in {file} do not fit {name}: {found}.")
    known = (config.mean, config.std) if given.channels(config.first_conv) == 3 else ((), ())
    return model, replace(config, mean=given.mean or known[0], std=given.std or known[1]), found


def _loaded(name: str, file: Path | None, options: dict[str, Any]) -> Any:
    """The model with weights that timm reads or downloads itself.

    timm does not report missing weights. They are recognised by their dependence on the seed.
    """
    overlay = {"file": str(file), "custom_load": True} if file else None  # None: timm downloads them
    models = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=()), warnings.catch_warnings():
            # timm's interpolation of biases is slow, and torch warns about it
            warnings.simplefilter("ignore", UserWarning)
            torch.manual_seed(seed)
            try:
                models.append(
                    timm.create_model(name, pretrained=True, in_chans=3, pretrained_cfg_overlay=overlay, **options)
                )
            except Exception as error:
                raise ValueError(_unfit(file or _wanted(pretrained_config(name)), name, error)) from None
    one, other = (model.state_dict() for model in models)
    lost = [key for key in one if one[key].is_floating_point() and not torch.equal(one[key], other[key])]
    if lost:
        where = file or _wanted(pretrained_config(name))
        raise ValueError(f"The weights in {where} do not fit {name}: {len(lost)} are missing ({lost[0]} …).")
    return models[0]


def _unfit(where: object, name: str, error: Exception) -> str:
    """One message for the many errors of timm and torch about weights that do not fit."""
    return f"The weights in {where} do not fit {name}: {' '.join(str(error).split())[:200]}"


def random_model(name: str, channels: int, options: dict[str, Any]) -> Any:
    """A model with random weights, without advancing the global random state."""
    with torch.random.fork_rng(devices=()):
        return timm.create_model(name, in_chans=channels, **options)


def laid_over(model: Any, name: str, state: dict[str, Tensor], where: str, *, antialias: bool = True) -> Coverage:
    """Load weights into a model where names and shapes agree; returns where they do not.

    The model's own functions convert published names to timm's and resize position embeddings. If the model averages
    the tokens, it has `fc_norm` after the average instead of `norm`, and starts from the `norm` of the file.
    """
    own = model.state_dict()
    try:
        resized = state if antialias else _without_antialiasing(model, state)
        given = _positions(_filtered(model, name, resized), own)
    except Exception as error:
        raise ValueError(_unfit(where, name, error)) from None
    norm = ("norm.weight", "norm.bias")
    moved = {key: f"fc_{key}" for key in given if key in norm and f"fc_{key}" in own.keys() - given.keys()}
    given = {moved.get(one, one): value for one, value in given.items()}
    fits = {key: value for key, value in given.items() if key in own and _alike(own[key], value)}
    model.load_state_dict(fits, strict=False)
    counted = [key for key, value in own.items() if value.is_floating_point()]
    sources = {id(value): key for key, value in state.items()}
    traced = {key: sources.get(id(value), key) for key, value in given.items()}  # other numbers under the same name
    return Coverage(
        tuple(key for key in counted if key in fits),
        tuple(key for key in counted if key not in given),
        tuple(key for key in given if key not in own),
        tuple(f"{key}: {_shape(given[key])} for {_shape(own[key])}" for key in counted if key in given.keys() - fits),
        frozenset(traced[key] for key in fits),
        frozenset(state.keys() - set(traced.values())),
        frozenset(traced[key] for key in given if key in own and key not in fits),
        bool(moved),
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether shapes agree and both are floating-point, or neither."""
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _shape(value: Tensor) -> str:
    """64 × 3 × 7 × 7"""
    kind = "" if value.is_floating_point() else f" of {str(value.dtype).removeprefix('torch.')}"
    return (" × ".join(map(str, value.shape)) or "a number") + kind


def _filtered(model: Any, name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names, converted by the function that timm calls for the model."""
    modules = [timm.model_entrypoint(name.split(".")[0]).__module__, type(model).__module__]
    found = [vars(sys.modules[module]).get(known) for module in modules for known in FILTERS]
    function = next((one for one in found if one), None)
    if function is None:
        return state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # timm's interpolation of biases is slow, and torch warns about it
        return (
            function(dict(state), model) if len(inspect.signature(function).parameters) > 1 else function(dict(state))
        )


def weights_in(file: Path) -> dict[str, Tensor]:
    """The weights in a file under their own names; nothing in the file is executed."""
    try:
        return timm.models.load_state_dict(str(file), weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} cannot be read as weights ({type(error).__name__}).") from None


def _positions(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two-dimensional position maps (Visformer's) interpolated to the model's size; timm interpolates the others
    itself."""
    maps = {key: value for key, value in state.items() if "pos_embed" in key and value.ndim == 4 and key in own}
    sizes = {key: own[key].shape[2:] for key, value in maps.items() if own[key].shape[:2] == value.shape[:2]}
    return state | {
        key: F.interpolate(maps[key], size, mode="bicubic", antialias=True)
        for key, size in sizes.items()
        if size != maps[key].shape[2:]
    }


def _without_antialiasing(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The position embeddings of a square grid, (1, prefix + patches, dim), interpolated to the model's grid."""
    positions, grid = state["pos_embed"], model.patch_embed.grid_size
    side = math.isqrt(positions.shape[1])
    if (side, side) == grid:
        return state
    prefix = positions.shape[1] - side * side
    patches = positions[:, prefix:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    patches = F.interpolate(patches.float(), grid, mode="bicubic", align_corners=False)
    patches = patches.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return state | {"pos_embed": torch.cat([positions[:, :prefix], patches], 1)}


def _on_disk(config: Any) -> Path | None:
    """File of pretrained weights downloaded earlier; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    hub = str(config.hf_hub_id or "").partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    cached = [try_to_load_from_cache(hub[0], name, revision=hub[2] or None) for name in names if hub[0]]
    if config.url:
        cached.append(str(Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name))
    return next((Path(file) for file in cached if isinstance(file, str) and Path(file).is_file()), None)


def _wanted(config: Any) -> str:
    """What timm would download."""
    if config.hf_hub_id:
        return f"{config.hf_hub_filename or 'model.safetensors'} of {config.hf_hub_id}"
    return config.url or "a file (timm has no address for it)"


def _answers(config: Any) -> bool:
    """Whether the download server responds to one request; the usual client tries a dozen times and prints each."""
    from huggingface_hub import constants

    if (not config.hf_hub_id and not config.url) or constants.HF_HUB_OFFLINE:
        return False
    address = constants.ENDPOINT if config.hf_hub_id else config.url
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # an error response is a response, too
    except (OSError, ValueError):
        return False
