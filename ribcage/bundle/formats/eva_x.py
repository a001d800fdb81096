"""EVA-X: vision transformers of EVA-02 with 16 × 16 patches, pretrained or fine-tuned on chest radiographs.

    {module: {mask_token, lm_head.*, norm.*}}    pretrained by masked image modelling
    {model: {fc_norm.*, head.*}}                 fine-tuned on ChestX-ray14 (14 outputs) or CheXpert (5)
    attn.qkv, q_bias, v_bias, mlp.w12, w3        blocks of ViT-Ti and ViT-S
    attn.q_proj, k_proj, v_proj, q_bias, v_bias, mlp.w1, w2, ffn_ln, w3    blocks of ViT-B

The input is greyscale repeated in three channels. The feature is the average of the patches, normalised by `fc_norm`,
which starts from `norm` after pretraining. Rotary embeddings are constants (`rope.freqs_cos`, `rope.freqs_sin`); they
decide between two variants of ViT-B. Yao et al. 2024, https://arxiv.org/abs/2405.05237
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import Evidence, Published, architecture, input_size
from ribcage.data.findings import CHESTXRAY14

SOURCE = "https://github.com/hustvl/EVA-X"
LICENCE = "MIT"
LAST = -2
"""This layout is tried before `medical_mae`, whose fine-tuned models share some of its names."""

MEAN, STD = (0.49185243,) * 3, (0.28509309,) * 3
CHEXPERT = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion")
OUTPUTS = {len(CHESTXRAY14): (CHESTXRAY14, "ChestX-ray14"), len(CHEXPERT): (CHEXPERT, "CheXpert")}
"""Number of outputs → findings and dataset."""
ARCHITECTURES = ("eva_x_tiny_patch16", "eva_x_small_patch16", "eva_x_base_patch16")
HEAD = 64
"""Width of a head in all sizes."""
ROPES = {14: "", 16: "_rope16"}
"""Steps of the rotary embeddings per side → end of the name of the architecture."""
UNUSED = re.compile(r"mask_token$|lm_head\.|(.*\.)?rope\.freqs_(cos|sin)$")
NAMES = (
    (".mlp.ffn_ln.", ".mlp.norm."),
    (".mlp.w12.", ".mlp.fc1."),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
)
"""Names in the file → timm's names."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are gated layers as EVA-02 names them, and 16 × 16 patches."""
    patches = weights.get("patch_embed.proj.weight", torch.empty(0))
    gated = "blocks.0.mlp.w12.weight" in weights or "blocks.0.mlp.w1.weight" in weights
    return gated and {"cls_token", "blocks.0.attn.q_bias"} <= set(weights) and patches.shape[2:] == (16, 16)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    unused = tuple(name for name in weights if UNUSED.match(name))
    state = timm_names_of({name: value for name, value in weights.items() if name not in unused})
    averaged = {re.sub(r"^norm\.", "fc_norm.", name): value for name, value in state.items()}
    name = architecture(averaged, ARCHITECTURES)
    if not name:
        raise ValueError("no EVA-X model has weights of these names and shapes")
    steps = _rope_steps(weights, state["pos_embed"].shape[1] - 1)
    variants = [name + end for steps_per_side, end in ROPES.items() if steps_per_side in steps]
    if not variants or (name != ARCHITECTURES[2] and 14 not in steps):
        raise ValueError(f"the rotary embeddings in the file are not those of {name}")
    findings, data = OUTPUTS.get(len(state.get("head.weight", ())), ((), "chest radiographs (Merged-520k)"))
    place: dict[str, Any] = input_size(state)
    if findings == CHEXPERT and name == ARCHITECTURES[0]:
        place["stored"] = max(place["size"])  # the only one that was fine-tuned without cropping
    seen = Evidence("names", "mlp.w12 or mlp.w1, attn.q_bias, and patches of 16 × 16")
    model: Any = {"name": variants[0]} if len(variants) == 1 else {"candidates": tuple(variants)}
    return Published(
        state,
        MEAN,
        STD,
        findings=findings,
        findings_inferred=bool(findings),
        data=data,
        evidence=seen,
        unused=unused,
        **model,
        **place,
    )


def timm_names_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names."""
    separate = "blocks.0.attn.q_proj.weight" in weights
    state: dict[str, Tensor] = {}
    for name, value in weights.items():
        new = re.sub(r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias", name) if separate else name
        for old, replacement in NAMES:
            new = new.replace(old, replacement)
        if new in state:
            raise ValueError(f"two weights are named {new}")
        state[new] = value
    return state


def _rope_steps(weights: Mapping[str, Tensor], patches: int) -> set[int]:
    """The steps per side that fit all rotary embeddings in the file.

    Without any, 14 as in pretraining; of a fine-tuned ViT-B they are then unknown.
    """
    constants = {name: value for name, value in weights.items() if re.search(r"rope\.freqs_(cos|sin)$", name)}
    if not constants:
        return set(ROPES) if "head.weight" in weights and "blocks.0.attn.q_proj.weight" in weights else {14}
    fitting = set(ROPES)
    for name, value in constants.items():
        if value.shape != (patches, HEAD):
            raise ValueError(f"{name} has the shape {tuple(value.shape)} instead of {(patches, HEAD)}")
        for steps in set(fitting):
            angles = rope_angles(math.isqrt(patches), steps)
            expected = angles.cos() if name.endswith("cos") else angles.sin()
            if not torch.allclose(value.float(), expected, rtol=0, atol=0.01):  # may be in half precision
                fitting.remove(steps)
    return fitting


def rope_angles(side: int, steps: int) -> Tensor:
    """(side², HEAD): the angles of the rotary embeddings, first of rows and then of columns."""
    frequencies = 10_000.0 ** -(torch.arange(0, HEAD // 2, 2) / (HEAD // 2))
    angles = (torch.arange(side) / side * steps)[:, None] * frequencies.repeat_interleave(2)  # (side, HEAD / 2)
    rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)
