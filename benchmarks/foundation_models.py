"""Foundation models as the libraries that define them build and write them, with random weights of which each matters.

For benchmarks/foundation_parity.py; the libraries are imported when a model is built.
"""

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models.eva import Eva, checkpoint_filter_fn
from torch import Tensor, nn

from ribcage.bundle.formats.eva_x import rope_angles

Side = tuple[int, int]
Features = Callable[[Tensor], Tensor]
"""(N, 3, H, W) normalised images → (N, D) features of the library."""
RAD_DINO: dict[str, Any] = {
    "image_processor_type": "BitImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 3,
    "size": {"shortest_edge": 518}, "do_center_crop": True, "crop_size": {"height": 518, "width": 518},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5307, 0.5307, 0.5307], "image_std": [0.2583, 0.2583, 0.2583],
}  # fmt: skip
"""As in the preprocessor_config.json of RAD-DINO."""
SMALL: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}


@dataclass(frozen=True)
class Case:
    """A model of a library."""

    layout: str
    library: str
    what: str
    sizes: tuple[Side, ...]
    build: Callable[[Path, Side], tuple[Path, Features]]
    """(empty folder, size) → what the library wrote there, and its features."""
    options: tuple[str, ...] = ()
    """Further options of `convert`."""


def stirred(model: Any) -> Any:
    """The model in evaluation mode, with random weights of which each matters."""
    drawing = torch.Generator().manual_seed(3)
    for name, value in model.named_parameters():
        vector, embedding = value.ndim < 2, value.ndim > 1 and value.shape[0] == 1
        spread = 0.1 if vector else 0.5 if embedding else value[0].numel() ** -0.5
        plain = vector and bool(re.search("weight|lambda|gamma", name))
        value.data = torch.randn(value.shape, generator=drawing) * spread + plain
    return model.eval()


def settled(model: Any, channels: int) -> Any:
    """A CNN whose batch norms have the statistics of some images, without which its features would hardly vary."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, channels, 96, 96, generator=torch.Generator().manual_seed(4)))
    return model.eval()


# ---- models


def transformers_folder(folder: Path, model: Any, scale: dict[str, Any] = RAD_DINO) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(scale))
    return folder


def dinov2(folder: Path, registers: bool = False, **options: Any) -> tuple[Path, Features]:
    transformers: Any = importlib.import_module("transformers")
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{name}Config")(image_size=518, patch_size=14, **options)
    model = stirred(getattr(transformers, f"{name}Model")(config))
    return transformers_folder(folder, model), lambda images: model(images).pooler_output


def dinov3(folder: Path, **options: Any) -> tuple[Path, Features]:
    transformers: Any = importlib.import_module("transformers")
    config = transformers.DINOv3ViTConfig(image_size=224, patch_size=16, num_register_tokens=4, **options)
    model = stirred(transformers.DINOv3ViTModel(config))
    return transformers_folder(folder, model), lambda images: model(images).pooler_output


def monai_densenet(folder: Path, size: Side) -> tuple[Path, Features]:
    nets: Any = importlib.import_module("monai.networks.nets")
    model = settled(stirred(nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=14)), 3)
    torch.save(model.state_dict(), folder / "model.pt")
    model.class_layers.out = nn.Identity()
    return folder / "model.pt", model


def xrayvision_densenet(folder: Path, size: Side) -> tuple[Path, Features]:
    models: Any = importlib.import_module("torchxrayvision.models")
    model = stirred(models.DenseNet(num_classes=18, in_channels=1, apply_sigmoid=False))
    settled(model, 1)
    torch.save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt", lambda images: model.features2(images[:, :1])


def siglip(folder: Path, **options: Any) -> tuple[Path, Features]:
    transformers: Any = importlib.import_module("transformers")
    model = stirred(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**options)))
    return transformers_folder(folder, model), lambda images: model(images).pooler_output


def clip(folder: Path, **options: Any) -> tuple[Path, Features]:
    transformers: Any = importlib.import_module("transformers")
    model = stirred(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**options)))
    return transformers_folder(folder, model), lambda images: model(images).pooler_output


TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
"""A small text tower, which is not read."""


def open_clip(folder: Path, custom: bool, vision: dict[str, Any], **options: Any) -> tuple[Path, Features]:
    """A folder of OpenCLIP, and what its image tower gives before the projection."""
    models: Any = importlib.import_module("open_clip.model")
    config = {"embed_dim": 512, "vision_cfg": {"image_size": 224, **vision}, "text_cfg": TEXT, **options}
    model = stirred((models.CustomTextCLIP if custom else models.CLIP)(**config))
    save_file(
        {name: value.clone() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    scale = {"mean": RAD_DINO["image_mean"], "std": RAD_DINO["image_std"]}
    facts = {"model_cfg": config | ({"custom_text": True} if custom else {}), "preprocess_cfg": scale}
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    visual = model.visual
    if hasattr(visual, "trunk"):
        return folder / "open_clip_model.safetensors", visual.trunk
    visual.proj = None
    return folder / "open_clip_model.safetensors", visual


def eva_x(folder: Path, width: int, heads: int, **options: Any) -> tuple[Path, Features]:
    """A pretraining checkpoint with the names of EVA-X's program, and timm's model after its own conversion of it."""
    facts: dict[str, Any] = {
        "img_size": 224, "patch_size": 16, "embed_dim": width, "depth": 12, "num_heads": heads, "num_classes": 0,
        "mlp_ratio": 8 / 3, "swiglu_mlp": True, "use_rot_pos_emb": True, "ref_feat_shape": (14, 14),
    }  # fmt: skip
    weights: dict[str, Tensor] = {}
    for name, value in stirred(Eva(**facts, **options)).state_dict().items():
        for one, other in EVA_NAMES:
            name = name.replace(one, other)
        weights[name] = value.clone()
    angles = rope_angles(14, 14)
    weights |= {"mask_token": torch.zeros(1, 1, width), "lm_head.weight": torch.zeros(768, width)}
    weights |= {"lm_head.bias": torch.zeros(768)}
    weights |= {"rope.freqs_cos": angles.cos(), "rope.freqs_sin": angles.sin()}
    model = Eva(**facts, **options).eval()
    model.load_state_dict(checkpoint_filter_fn(dict(weights), model), strict=True)
    torch.save({"module": weights}, folder / "model.pt")
    return folder / "model.pt", model


EVA_NAMES = (
    ("mlp.norm", "mlp.ffn_ln"), ("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc1", "mlp.w12"),
    ("mlp.fc2", "mlp.w3"), ("fc_norm", "norm"), ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"),
)  # fmt: skip
"""Names of timm and those of EVA-X."""


def timm_tower(name: str, pool: str, projection: str) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool, "timm_proj": projection}


SCALE = ("--mean", "0.5307", "0.5307", "0.5307", "--std", "0.2583", "0.2583", "0.2583")
GRAY_SCALE = ("--mean", "0.5307", "--std", "0.2583")
PATCH14: tuple[Side, ...] = ((224, 224), (280, 224), (518, 518))
NATIVE: tuple[Side, ...] = ((224, 224),)
PATCH16: tuple[Side, ...] = ((224, 224), (256, 192))
CASES = (
    Case("transformers_dino", "transformers", "DINOv2, ViT-S/14", PATCH14, lambda at, _: dinov2(at, **SMALL)),
    Case("transformers_dino", "transformers", "RAD-DINO: DINOv2, ViT-B/14", ((224, 224), (518, 518)),
         lambda at, _: dinov2(at, hidden_size=768, num_hidden_layers=12, num_attention_heads=12)),
    Case("transformers_dino", "transformers", "DINOv2 with 4 registers, ViT-S/14", PATCH14,
         lambda at, _: dinov2(at, True, num_register_tokens=4, **SMALL)),
    Case("transformers_dino", "transformers", "DINOv3, ViT-S/16", PATCH16,
         lambda at, _: dinov3(at, intermediate_size=1536, **SMALL)),
    Case("transformers_siglip", "transformers", "SigLIP, ViT-B/16", NATIVE, lambda at, _: siglip(at)),
    Case("transformers_clip", "transformers", "CLIP, ViT-B/32, QuickGELU", NATIVE, lambda at, _: clip(at)),
    Case("open_clip", "open_clip", "BiomedCLIP: timm ViT-B/16", NATIVE,
         lambda at, _: open_clip(at, True, timm_tower("vit_base_patch16_224", "", "linear"))),
    Case("open_clip", "open_clip", "SigLIP: timm ViT-B/16", NATIVE,
         lambda at, _: open_clip(at, True, timm_tower("vit_base_patch16_siglip_224", "map", "none"), embed_dim=768)),
    Case("open_clip", "open_clip", "CLIP, ViT-B/16, GELU", NATIVE,
         lambda at, _: open_clip(at, False, {"layers": 12, "width": 768, "patch_size": 16})),
    Case("open_clip", "open_clip", "CLIP, ViT-B/32, QuickGELU", NATIVE,
         lambda at, _: open_clip(at, False, {"layers": 12, "width": 768, "patch_size": 32}, quick_gelu=True)),
    Case("eva_x", "timm", "EVA-X-S", NATIVE, lambda at, _: eva_x(at, 384, 6), SCALE),
    Case("eva_x", "timm", "EVA-X-B", NATIVE,
         lambda at, _: eva_x(at, 768, 12, qkv_fused=False, scale_mlp=True), SCALE),
    Case("monai", "monai", "DenseNet-121", ((128, 128),), monai_densenet, SCALE),
    Case("xrayvision", "torchxrayvision", "DenseNet-121", ((224, 224),), xrayvision_densenet, GRAY_SCALE),
)  # fmt: skip
