"""Transformers: the folder of a DINOv2 or DINOv3 vision transformer, such as RAD-DINO.

    config.json                 model_type dinov2, dinov2_with_registers or dinov3_vit
    model.safetensors           encoder.layer.N.*, layernorm.*; DINOv3: layer.N.* or model.layer.N.*, norm.*
    preprocessor_config.json    sizes and normalisation of the images; without it, ImageNet's normalisation is assumed

Queries, keys and values have separate weights, which timm stores as one. The feature is the class token after the last
norm (`pooler_output`). Files of transformers 4 and 5 name the weights of the attention differently; both are read.

Oquab et al. 2023, https://arxiv.org/abs/2304.07193; Perez-Garcia et al. 2024, https://arxiv.org/abs/2401.10815
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.reading.config_file import image_side, json_object
from ribcage.bundle.formats.reading.dino import DINOV2, DINOV3, dino_architecture, joined, without_class_position
from ribcage.bundle.formats.reading.preprocessor_config import folder_preprocessing
from ribcage.bundle.formats.reading.published_weights import MEAN, STD, Evidence, Published

SOURCE = "https://huggingface.co"
LICENCE = "as stated on the model card"
LAST = -1
BESIDE = "config.json"

ARCHITECTURES = {"dinov2": DINOV2, "dinov2_with_registers": DINOV2, "dinov3_vit": DINOV3}
"""Model type in config.json → timm's architectures by size."""

NAMES = (
    (r"^(dinov2|dinov2_with_registers|dinov3_vit)\.", ""),
    (r"^(encoder|model)\.layer\.", "layer."),
    (r"^layer\.", "blocks."),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.(query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(value|v_proj)\.", ".attn.v."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.fc2."),
)
"""Names in the file → timm's names, in this order. Gated layers are joined afterwards."""
UNUSED = r"(mask_token|rope_embeddings\.inv_freq)$"
"""Weights that are needed for pretraining only, and constants."""


def published(weights: dict[str, Tensor], config: Path) -> Published | None:
    """The weights under timm's names, with the preprocessing of the folder; None for other kinds of models."""
    content = json_object(config)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        return None
    unused = tuple(name for name in weights if re.search(UNUSED, name))
    state, converted = timm_weights({name: value for name, value in weights.items() if name not in unused}, kind)
    name = dino_architecture(state, ARCHITECTURES[kind])
    if not name:
        raise ValueError(f"no {kind} model in timm has weights of these names and shapes")
    trained = image_side(content.get("image_size", 224))
    steps, stated = folder_preprocessing(config.parent, trained, MEAN, STD)
    seen = Evidence("metadata", f"{config.name}: {kind}")
    return Published(
        state,
        name=name,
        pool="token",
        antialias=kind != "dinov2",
        unused=unused,
        converted=converted,
        evidence=seen,
        stated=stated,
        **steps,
    )


def timm_weights(weights: Mapping[str, Tensor], kind: str) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The weights under timm's names; the names in the file of those that were converted."""
    state: dict[str, Tensor] = {}
    original: dict[str, str] = {}
    for name, value in weights.items():
        new = name
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        if kind == "dinov3_vit":
            new = re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", new)
        if new in state:
            raise ValueError(f"{name} and {original[new]} are the same weight")
        state[new], original[new] = value, name
    converted: dict[str, tuple[str, ...]] = {}

    def join(new: str, *parts: str) -> None:
        state[new], converted[new] = joined(state, list(parts)), tuple(original[part] for part in parts)

    for block in sorted({match[1] for name in state if (match := re.match(r"(blocks\.\d+)\.", name))}):
        attention, mlp = f"{block}.attn", f"{block}.mlp"
        join(f"{attention}.qkv.weight", *(f"{attention}.{one}.weight" for one in "qkv"))
        if f"{attention}.k.bias" in state:
            join(f"{attention}.qkv.bias", *(f"{attention}.{one}.bias" for one in "qkv"))
        for one in "qv" * (f"{attention}.q.bias" in state):
            state[f"{attention}.{one}_bias"] = state.pop(f"{attention}.{one}.bias")
        for part in ("weight", "bias"):
            gate, up = f"{mlp}.gate_proj.{part}", f"{mlp}.up_proj.{part}"
            if gate not in state and up in state:
                state[f"{mlp}.fc1.{part}"] = state.pop(up)
            elif gate in state and kind == "dinov3_vit":
                state[f"{mlp}.fc1_g.{part}"], state[f"{mlp}.fc1_x.{part}"] = state.pop(gate), state.pop(up)
            elif gate in state:
                join(f"{mlp}.fc1.{part}", gate, up)
    if "reg_token" in state and not state["reg_token"].shape[1]:
        del state["reg_token"]
    return state, converted | without_class_position(state, original)
