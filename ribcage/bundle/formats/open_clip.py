"""OpenCLIP: the folder of a CLIP model, such as BiomedCLIP, of which the image tower is read.

    open_clip_config.json         model_cfg: the towers; preprocess_cfg: sizes and normalisation of the images
    open_clip_model.safetensors   visual.*, and the text tower, which is left out; or open_clip_pytorch_model.bin

An image tower is a model of timm (`visual.trunk.*`), or CLIP's own vision transformer (`visual.transformer.*`, with
GELU or, if `quick_gelu` is set, x sigmoid(1.702 x)). The feature is that before the projection to the space of the
texts.

Radford et al. 2021, https://arxiv.org/abs/2103.00020; Zhang et al. 2023, https://arxiv.org/abs/2303.00915
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from ribcage.bundle.formats.reading.clip import TEXT, tower_architecture
from ribcage.bundle.formats.reading.config_file import image_side, json_object, one_line
from ribcage.bundle.formats.reading.published_weights import Evidence, Published, last_layers_of
from ribcage.bundle.spec import wrong_normalisation
from ribcage.models.catalogue import is_known

SOURCE = "https://github.com/mlfoundations/open_clip"
LICENCE = "as stated on the model card"
LAST = -1
BESIDE = "open_clip_config.json"
FILES = ("open_clip_",)

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Normalisation of a folder that states none, as OpenCLIP's default."""
FITS = {"shortest": "crop", "squash": "squash", "longest": "pad"}
"""resize_mode → how an image is made square."""
TRUNK, OWN = "visual.trunk.", "visual."
PROJECTION = re.compile(r"visual\.(proj$|head\.)")
TEXT_TOWER = re.compile(
    r"(text|text_decoder|token_embedding|transformer|ln_final)\.|positional_embedding$|text_projection(\.(weight|bias))?$"
    r"|logit_(scale|bias)$|attn_mask$"
)
PLAIN = {
    "attentional_pool": False,
    "no_ln_pre": False,
    "ls_init_value": None,
    "norm_kwargs": None,
    "act_kwargs": None,
    "pool_type": "tok",
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
"""Settings of CLIP's own transformer that timm's models have."""
NAMES = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_(1|2)\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
"""Names of CLIP's own transformer → timm's names."""


def published(weights: dict[str, Tensor], config: Path) -> Published:
    """The weights of the image tower under timm's names, with the preprocessing of the folder."""
    content = json_object(config)
    model, images = content.get("model_cfg"), content.get("preprocess_cfg", {})
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vision, dict) or not isinstance(images, dict):
        raise ValueError(f"{config.name} beside it is not valid JSON or does not describe the image tower")
    text = tuple(name for name in weights if TEXT_TOWER.match(name))
    tower = {name: value for name, value in weights.items() if name not in text}
    if "timm_model_name" in vision:
        name, state, pool = _timm_tower(tower, vision)
        converted, projection = {}, [one for one in tower if one.startswith("visual.head.")]
        projection += [TRUNK + one for one in state if one.startswith(last_layers_of(name))]
        state = {one: value for one, value in state.items() if TRUNK + one not in projection}
    else:
        name, state, pool = _own_tower(tower, vision, bool(model.get("quick_gelu", False)))
        converted, projection = {"cls_token": ("visual.class_embedding",)}, ["visual.proj"]
        converted |= {"pos_embed": ("visual.positional_embedding",)}
    return Published(
        state,
        name=name,
        pool=pool,
        unused=(*text, *(one for one in projection if one in weights)),
        unused_because=TEXT,
        converted=converted,
        evidence=Evidence("metadata", config.name),
        stated=("architecture", *["preprocessing"] * ("mean" in images and "std" in images)),
        **preprocessing(images, vision.get("image_size", 224)),
    )


def _timm_tower(tower: Mapping[str, Tensor], vision: Mapping[str, Any]) -> tuple[str, dict[str, Tensor], str]:
    """Architecture, weights and pooling of a tower that is a model of timm."""
    name, pool = vision["timm_model_name"], vision.get("timm_pool", "avg")
    if not isinstance(name, str) or not is_known(name):
        raise ValueError(f"timm has no model named {one_line(name)}")
    if pool not in ("", "avg", "token", "map"):
        raise ValueError(f"the pooling {one_line(pool)} of the image tower is not supported")
    state = {one.removeprefix(TRUNK): value for one, value in tower.items() if not PROJECTION.match(one)}
    with torch.device("meta"):
        options = {"global_pool": pool} if pool else {}
        own = {one for one, _ in timm.create_model(name, num_classes=0, **options).named_parameters()}
    if differing := sorted(own - state.keys()):
        raise ValueError(f"{TRUNK}{differing[0]} is missing, which {name} has with the pooling {pool or 'of timm'}")
    return name, state, pool


def _own_tower(
    tower: Mapping[str, Tensor], vision: Mapping[str, Any], quick: bool
) -> tuple[str, dict[str, Tensor], str]:
    """Architecture, weights and pooling of a tower that is CLIP's own transformer."""
    for setting, plain in PLAIN.items():
        if (value := vision.get(setting, plain)) != plain:
            raise ValueError(f"an image tower with {setting} {one_line(value)} is not supported")
    state: dict[str, Tensor] = {}
    for one, value in tower.items():
        new = one.removeprefix(OWN)
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        if new in state:
            raise ValueError(f"two weights are named {new}")
        state[new] = value
    state.pop("proj", None)
    if missing := {"cls_token", "pos_embed", "patch_embed.proj.weight"} - state.keys():
        raise ValueError(f"the image tower has no {min(missing)}")
    state["cls_token"], state["pos_embed"] = state["cls_token"][None, None], state["pos_embed"][None]
    width = vision.get("head_width", 64)
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"head_width {one_line(width)} is not a width")
    heads = state["cls_token"].shape[-1] // width
    return tower_architecture(state, "clip", heads, "quick_gelu" if quick else "gelu"), state, ""


def preprocessing(content: Mapping[str, Any], trained: Any) -> dict[str, Any]:
    """Sizes and normalisation in preprocess_cfg, as fields of Published; `trained` is the size of the image tower."""
    mean, std = content.get("mean", MEAN), content.get("std", STD)
    if wrong := wrong_normalisation(mean, std):
        raise ValueError(wrong)
    size = content.get("size") or trained
    sides = size if isinstance(size, list) and len(size) == 2 else (size, size)
    height, width = (image_side(side) for side in sides)
    mode = content.get("resize_mode", "shortest")
    if mode not in FITS or (mode != "squash" and height != width):
        raise ValueError(f"resize_mode {one_line(mode)} to {height} × {width} is not supported")
    if mode == "longest" and content.get("fill_color", 0) != 0:
        raise ValueError(f"fill_color {one_line(content['fill_color'])} is not supported")
    found = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std)), "size": (height, width)}
    return found | {"stored": max(height, width), "fit": FITS[mode]}
