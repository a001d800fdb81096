"""Image towers of CLIP and SigLIP as transformers names them: settings in config.json, and names of the weights."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ribcage.bundle.formats.reading.clip import ACTIVATIONS
from ribcage.bundle.formats.reading.config_file import one_line

NAMES = (
    (r"^((siglip|clip)\.)?vision_model\.", ""),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm(1|2)\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
"""Names in the file → timm's names. Queries, keys and values are joined afterwards, those of the pooling split."""
TEXT_TOWER = re.compile(r"((siglip|clip)\.)?(text_model|text_projection|visual_projection)\.|logit_(scale|bias)$")
CONSTANTS = re.compile(r"(.*\.)?position_ids$")


def vision_settings(content: Mapping[str, Any], family: str, defaults: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the image tower, with those that transformers omits; None for models of another family."""
    kind = content.get("model_type")
    if kind not in (family, f"{family}_vision_model"):
        return None
    own = content.get("vision_config", {}) if kind == family else content
    if not isinstance(own, dict):
        raise ValueError(f"vision_config {one_line(own)} is not an object")
    settings = dict(defaults) | {name: own[name] for name in defaults if name in own}
    if str(settings["hidden_act"]) not in ACTIVATIONS:
        raise ValueError(f"hidden_act {one_line(settings['hidden_act'])} is not one of {', '.join(ACTIVATIONS)}")
    if settings["layer_norm_eps"] != defaults["layer_norm_eps"]:
        raise ValueError(f"layer_norm_eps {one_line(settings['layer_norm_eps'])} is not {defaults['layer_norm_eps']}")
    return settings


def tower_weights(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The image tower under timm's names; the names in the file of weights that were converted; the weights that are
    left out: text tower, projections and constants."""
    state: dict[str, Tensor] = {}
    original: dict[str, str] = {}
    unused = tuple(name for name in weights if TEXT_TOWER.match(name) or CONSTANTS.match(name))
    for name, value in weights.items():
        if name in unused:
            continue
        new = name
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        if new in state:
            raise ValueError(f"{name} and {original[new]} are the same weight")
        state[new], original[new] = value, name
    converted: dict[str, tuple[str, ...]] = {}
    for name, first in (("pos_embed", (None,)), ("cls_token", (None, None))):
        if name in state:
            state[name], converted[name] = state[name][first], (original[name],)
    for block in sorted({match[1] for name in state if (match := re.match(r"(blocks\.\d+)\.", name))}):
        for part in ("weight", "bias"):
            new, parts = f"{block}.attn.qkv.{part}", [f"{block}.attn.{one}.{part}" for one in "qkv"]
            state[new] = torch.cat([state.pop(one) for one in parts])
            converted[new] = tuple(original[one] for one in parts)
    for part in ("weight", "bias"):
        if (joined := state.pop(f"attn_pool.qkv.{part}", None)) is not None:
            width = len(joined) // 3
            state[f"attn_pool.q.{part}"], state[f"attn_pool.kv.{part}"] = joined[:width], joined[width:]
            converted |= dict.fromkeys(
                (f"attn_pool.q.{part}", f"attn_pool.kv.{part}"), (original[f"attn_pool.qkv.{part}"],)
            )
    return state, converted, unused
