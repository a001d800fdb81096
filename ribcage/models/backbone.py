"""Backbone: any timm model without its head – features (N, dim) and maps (N, dim, h, w), any size, 1 or 3 channels.

One channel is normal. ImageNet weights were made for three: their stem is folded into one, so that a gray image gives
what it gave as RGB. With w the stem's weights and m_c, s_c the means and spreads those weights expect,

    sum_c w_c (x - m_c) / s_c  =  (sum_c w_c s / s_c) (x - m) / s  +  sum_c w_c (m - m_c) / s_c,

the first factor is the new weight for images normalised by m and s, and the last term is a constant for each output:
it goes into the convolution's bias or the batch norm behind it. This is exact wherever the stem sees no zero padding.
A stem with neither (ResNets with group norms) loses that term, which GRAY keeps small: there it is not exact.
"""

import copy
import inspect
import math
import re
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
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.models import architectures as architectures  # ours are then known to timm
from ribcage.models.layers import choose_attention
from ribcage.runtime.spelling import did_you_mean

IMAGENET = "imagenet"
GRAY = (0.449, 0.226)
"""Mean and spread of ImageNet as gray: with these the zero padding of a folded stem means what it meant before."""
PATCH = 16
"""Side of what most transformers take as one token."""
LEVELS = 3
"""Maps of a CNN that a detector looks at: the three coarsest."""
STEMS = ("Conv2d", "Conv2dSame")  # convolutions that standardise their weights cannot be folded
NAME = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?", re.ASCII)
"""A model of timm's, and after a dot which of its weights."""
POOLS: tuple[str, ...] = (
    "",
    "avg",
    "max",
    "avgmax",
    "catavgmax",
    "fast",
    "fastavg",
    "fastmax",
    "fastavgmax",
    "fastcatavgmax",
)
POOLS += ("token", "map", "prr")
"""What timm can pool features by; "": as the model does by itself."""
MOST_MEAN, LEAST_STD, MOST_STD = 1e3, 1e-6, 1e3
"""Pixels are 0 … 1: no normalisation is outside of these."""
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""What timm calls the functions that bring published names to its own."""


UNKNOWN, UNFIT = "the model has no such weight", "of another shape in the model"
OMITTED = "left out or taken apart by timm's own reader of this model"
"""What can become of a weight of a file that the model does not have."""


@dataclass(frozen=True)
class Weights:
    """Weights under timm's names, and the images they were made for."""

    state: dict[str, Tensor]
    mean: tuple[float, ...] = ()
    """Of each channel, what is subtracted from pixels in 0 … 1; (): as timm says of the model."""
    std: tuple[float, ...] = ()
    """And by what they are then divided."""

    def channels(self, stem: str | list[str]) -> int:
        """Of the images they were made for."""
        first = self.state.get(f"{stem}.weight")
        return 1 if first is not None and first.ndim == 4 and first.shape[1] == 1 else 3


@dataclass(frozen=True)
class Coverage:
    """How much of a model a file has, and of the file the model."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """The model has them, the file has not."""
    unexpected: tuple[str, ...]
    """The file has them, the model has not."""
    other: tuple[str, ...]
    """Both have them, of other shapes."""
    used: frozenset[str] = frozenset()
    """Those of the file, by the names it was given with, whose numbers are in the model."""
    dropped: frozenset[str] = frozenset()
    """Those of the file that timm's own reader of this model leaves out or takes apart."""
    unfit: frozenset[str] = frozenset()
    """Those of the file that have another shape in the model."""

    @property
    def lost(self) -> tuple[str, ...]:
        """What would stay random."""
        return self.missing + self.other

    def fate(self, name: str) -> str:
        """What became of a weight of the file; "" when the model has it."""
        if name in self.used:
            return ""
        return OMITTED if name in self.dropped else UNFIT if name in self.unfit else UNKNOWN

    def __str__(self) -> str:
        kinds = [(self.missing, "are not there"), (self.other, "have another shape")]
        return ", ".join(f"{len(names)} {said} ({names[0]} …)" for names, said in kinds if names)


class Backbone(nn.Module):
    """A timm model by name.

    Args:
        name: any name of timm's, or one of `architectures/`.
        channels: of the images; 1 for gray.
        size: (height, width) of the images; None: the model's own. Position embeddings are made for it.
        init: "" for random weights, "imagenet" for timm's pretrained ones, else a file with them.
        drop_path: share of residual branches dropped in training.
        pool: how features are pooled, in timm's words (avg, token, max …); "": as the model does by itself.
        mean, std: what the images will be normalised by; pretrained weights are fitted to it.
        read: gives the weights in a file under timm's names; None: as the file names them.
        rgb_normalisation: (means, standard deviations) of three channels, for published weights used unchanged:
            images normalised by `mean` and `std` are converted to these first.
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int = 1,
        size: tuple[int, int] | None = None,
        init: str = "",
        drop_path: float = 0.0,
        pool: str = "",
        mean: float = GRAY[0],
        std: float = GRAY[1],
        read: Callable[[Path], Weights] | None = None,
        rgb_normalisation: tuple[tuple[float, ...], ...] = (),
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"A backbone takes 1 or 3 channels, not {channels}.")
        if pool not in POOLS:
            raise ValueError(f"Unknown pool {pool[:60]!r}.{did_you_mean(pool, POOLS)} Known: {', '.join(POOLS[1:])}.")
        self.name, self.channels, self.pretrained = known_model(name), channels, bool(init)
        options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path} if drop_path else {"num_classes": 0}
        if pool:
            options["global_pool"] = pool
        if size is not None and pretrained_config(name).fixed_input_size:
            options["img_size"] = size
        self.coverage: Coverage | None = None
        """What of a file became what of the model, where there was one."""
        if init:
            self.model, config, self.coverage = _pretrained(
                name, init, options, read or (lambda file: Weights(weights_in(file)))
            )
            if channels == 1 and config.mean:  # weights for gray of which nothing is said are taken as they are
                fold_stem(self.model, config, mean, std)
        else:
            self.model = timm.create_model(name, in_chans=channels, **options)
        self.scale, self.rgb_normalisation = (mean, std), rgb_normalisation
        self.dim: int = getattr(self.model, "head_hidden_size", None) or self.model.num_features
        self.size: tuple[int, int] = size or tuple(pretrained_config(name).input_size[1:])

    def forward(self, images: Tensor) -> Tensor:
        """(N, dim) features."""
        return self.pool(self.hidden(images))

    def hidden(self, images: Tensor) -> Tensor:
        """What `model.forward_features` gives: for `pool` and `grid`."""
        tokens = math.prod(-(-side // PATCH) for side in images.shape[2:])
        choose_attention(self.model, tokens, images.device)
        return self.model.forward_features(self.shown(images))

    def shown(self, images: Tensor) -> Tensor:
        """The images as the model's first layer expects them."""
        if not self.rgb_normalisation:
            return images
        (mean, std), (means, stds) = (
            self.scale,
            (images.new_tensor(each)[:, None, None] for each in self.rgb_normalisation),
        )
        return (images * std + mean - means) / stds

    def pool(self, hidden: Tensor) -> Tensor:
        """What `model.forward_features` gave → (N, dim), as the model itself pools before its head."""
        return self.model.forward_head(hidden, pre_logits=True)

    def maps(self, images: Tensor) -> Tensor:
        """(N, dim, h, w): features where they are in the image; a transformer's tokens go back on their grid.

        A model that widens its features after pooling (MobileNet, VGG) has fewer channels here.
        """
        return self.grid(self.hidden(images), (images.shape[-2], images.shape[-1]))

    @property
    def levels(self) -> dict[int, int]:
        """Of the maps of `pyramid`: how much smaller than the image → channels."""
        stages = {stage["reduction"]: stage["num_chs"] for stage in self._stages()}
        last = max(stages)
        return {step: stages[step] for step in sorted(stages)[-LEVELS:-1]} | {last: self.model.num_features}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(N, channels, h, w) for each of `levels`: the last map of each size. A vision transformer has one."""
        tokens = math.prod(-(-side // PATCH) for side in images.shape[2:])
        choose_attention(self.model, tokens, images.device)
        hidden, maps = self.model.forward_intermediates(self.shown(images))
        steps = [stage["reduction"] for stage in self._stages()]
        found = dict(zip(steps, maps, strict=True))
        last = self.grid(hidden, (images.shape[-2], images.shape[-1]))
        return [found[step] for step in list(self.levels)[:-1]] + [last]

    def _stages(self) -> list[dict[str, Any]]:
        """What timm says of the model's maps."""
        info = self.model.feature_info
        return info if isinstance(info, list) else info.info

    def grid(self, hidden: Tensor, size: tuple[int, int]) -> Tensor:
        """What `model.forward_features` gave → (N, dim, h, w)."""
        if hidden.ndim == 4:
            return hidden.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else hidden
        tokens = hidden[:, getattr(self.model, "num_prefix_tokens", 0) :]
        reduction = self.model.feature_info[-1]["reduction"]
        return tokens.transpose(1, 2).unflatten(2, (-(-size[0] // reduction), -(-size[1] // reduction)))


def is_known(name: str) -> bool:
    """Whether timm, or `architectures/`, has such a model. A name with a source before it (hf-hub:…) is none:
    timm would ask the network for it."""
    if not NAME.fullmatch(name) or not timm.is_model(name.split(".")[0]):
        return False
    try:
        return bool(timm.get_pretrained_cfg(name))
    except RuntimeError:  # a tag that timm does not know
        return False


def known_model(name: str) -> str:
    """The name, if there is such a model."""
    if not is_known(name):
        names = timm.list_models()
        raise ValueError(
            f"Unknown model {name!r}.{did_you_mean(name, names)} Any of timm's {len(names):,} models will do."
        )
    return name


def pretrained_config(name: str) -> Any:
    """What timm knows of a model: the size it needs, its first layer, the means and spreads its weights expect."""
    return timm.get_pretrained_cfg(name)


def _pretrained(
    name: str, init: str, options: dict[str, Any], read: Callable[[Path], Weights]
) -> tuple[Any, Any, Coverage | None]:
    """The model with pretrained weights, and timm's facts of these; never random ones in silence."""
    config = pretrained_config(name)
    file = _on_disk(config) if init == IMAGENET else Path(init)
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"The weights {init} do not exist.")
    if file is None and not _answers(config):
        raise OSError(
            f"No pretrained weights for {name}: {_wanted(config)} is neither on disk nor can it be downloaded. "
            "Download it elsewhere and pass --init FILE, or train without --init."
        )
    if file is None or file.suffix == ".npz":
        return _loaded(name, file, options), config, None
    given = read(file)
    model = random_model(name, given.channels(config.first_conv), options)
    found = laid_over(model, name, given.state, str(file))
    if found.lost:
        raise ValueError(f"The weights in {file} do not fit {name}: {found}.")
    known = (config.mean, config.std) if given.channels(config.first_conv) == 3 else ((), ())
    return model, replace(config, mean=given.mean or known[0], std=given.std or known[1]), found


def _loaded(name: str, file: Path | None, options: dict[str, Any]) -> Any:
    """The model with weights that timm itself reads or downloads.

    Of weights that were missing timm says nothing. They are those that follow the seed.
    """
    overlay = {"file": str(file), "custom_load": True} if file else None  # None: timm downloads them
    models = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # timm's interpolation of biases is slow, and torch says so
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
    """timm and torch say in many ways that weights do not fit."""
    return f"The weights in {where} do not fit {name}: {' '.join(str(error).split())[:200]}"


def random_model(name: str, channels: int, options: dict[str, Any]) -> Any:
    """A model with random weights, which leaves everybody else's random numbers as they are."""
    with torch.random.fork_rng(devices=()):
        return timm.create_model(name, in_chans=channels, **options)


def laid_over(model: Any, name: str, state: dict[str, Tensor], where: str) -> Coverage:
    """Put weights into a model where names and shapes agree, and say where they do not.

    The model's own function brings published names to timm's, and positions to the model's size.
    """
    own = model.state_dict()
    try:
        given = _positions(_filtered(model, name, state), own)
    except Exception as error:
        raise ValueError(_unfit(where, name, error)) from None
    fits = {key: value for key, value in given.items() if key in own and _alike(own[key], value)}
    model.load_state_dict(fits, strict=False)
    counted = [key for key, value in own.items() if value.is_floating_point()]
    sources = {id(value): key for key, value in state.items()}
    traced = {key: sources.get(id(value), key) for key, value in given.items()}  # other numbers under the same name
    return Coverage(
        tuple(key for key in counted if key in fits),
        tuple(key for key in counted if key not in given and key.replace("fc_norm.", "norm.") not in given),
        tuple(key for key in given if key not in own),
        tuple(f"{key}: {_shape(given[key])} for {_shape(own[key])}" for key in counted if key in given.keys() - fits),
        frozenset(traced[key] for key in fits),
        frozenset(state.keys() - set(traced.values())),
        frozenset(traced[key] for key in given if key in own and key not in fits),
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether shapes agree, and fractions stand where there should be such."""
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _shape(value: Tensor) -> str:
    """64 × 3 × 7 × 7"""
    kind = "" if value.is_floating_point() else f" of {str(value.dtype).removeprefix('torch.')}"
    return (" × ".join(map(str, value.shape)) or "a number") + kind


def _filtered(model: Any, name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of timm's model, by the function that timm itself calls for it."""
    modules = [timm.model_entrypoint(name.split(".")[0]).__module__, type(model).__module__]
    found = [vars(sys.modules[module]).get(known) for module in modules for known in FILTERS]
    function = next((one for one in found if one), None)
    if function is None:
        return state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # timm's interpolation of biases is slow, and torch says so
        return (
            function(dict(state), model) if len(inspect.signature(function).parameters) > 1 else function(dict(state))
        )


def weights_in(file: Path) -> dict[str, Tensor]:
    """The weights in a file under its own names; nothing in it is executed."""
    try:
        return timm.models.load_state_dict(str(file), weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} cannot be read as weights ({type(error).__name__}).") from None


def _positions(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps of positions (Visformer's) interpolated to the model's size; rows of positions timm interpolates itself."""
    maps = {key: value for key, value in state.items() if "pos_embed" in key and value.ndim == 4 and key in own}
    sizes = {key: own[key].shape[2:] for key, value in maps.items() if own[key].shape[:2] == value.shape[:2]}
    return state | {
        key: F.interpolate(maps[key], size, mode="bicubic", antialias=True)
        for key, size in sizes.items()
        if size != maps[key].shape[2:]
    }


def _on_disk(config: Any) -> Path | None:
    """Where an earlier download put the pretrained weights; None when they are not on this machine."""
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
    return config.url or "a file (but timm knows of none)"


def _answers(config: Any) -> bool:
    """Whether somebody is there to download from: one question, where the usual client asks a dozen times, aloud."""
    from huggingface_hub import constants

    if (not config.hf_hub_id and not config.url) or constants.HF_HUB_OFFLINE:
        return False
    address = constants.ENDPOINT if config.hf_hub_id else config.url
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # an answer too
    except (OSError, ValueError):
        return False


# ---- three channels into one


def fold_stem(model: nn.Module, config: Any, mean: float, std: float) -> None:
    """Replace the stem, made for images normalised as `config` says, by the gray one that gives the same for images
    normalised by `mean` and `std`."""
    for stem in [config.first_conv] if isinstance(config.first_conv, str) else config.first_conv:
        _fold(model, stem, config, mean, std)


def _fold(model: nn.Module, stem: str, config: Any, mean: float, std: float) -> None:
    """One of the convolutions that see the image."""
    rgb: Any = model.get_submodule(stem)
    if type(rgb).__name__ not in STEMS or rgb.in_channels != len(config.mean):
        raise ValueError(f"{type(model).__name__} has no convolution of three channels at {stem}: use --channels 3.")
    gray = copy.copy(rgb)  # keeps its padding rule, whatever that is
    gray.in_channels, gray._parameters = 1, dict(rgb._parameters)
    m, s = (torch.tensor(values, dtype=torch.float64)[None, :, None, None] for values in (config.mean, config.std))
    weight, norm = rgb.weight.detach().double(), _norm_behind(model, stem)
    constant = (weight * ((mean - m) / s)).sum((1, 2, 3)).float()  # (outputs,)
    gray.weight = nn.Parameter((weight * (std / s)).sum(1, keepdim=True).float())
    if rgb.bias is not None:
        gray.bias = nn.Parameter(rgb.bias.detach() + constant)
    elif norm is not None and norm.running_mean is not None:
        norm.running_mean -= constant
    parent, _, name = stem.rpartition(".")
    setattr(model.get_submodule(parent), name, gray)


def _norm_behind(model: nn.Module, stem: str) -> nn.BatchNorm2d | None:
    """The batch norm that takes the stem's output: the next module of that kind, if it comes soon."""
    modules = list(model.named_modules())
    place = [name for name, _ in modules].index(stem)
    behind = [module for _, module in modules[place + 1 : place + 4]]
    return next((module for module in behind if isinstance(module, nn.BatchNorm2d)), None)
