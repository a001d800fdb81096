"""Transformers: the folder of SigLIP or of SigLIP 2 at a fixed size, of which the image tower is read.

    config.json                 model_type siglip or siglip_vision_model
    model.safetensors           vision_model.encoder.layers.N.*, vision_model.head.*; the text tower is left out
    preprocessor_config.json    sizes and normalisation of the images; without it, mean and std 0.5 are assumed

MedSigLIP is such a model. The feature is that of the attention pooling (`pooler_output`). GELU is computed by its
approximation with tanh, as `hidden_act` states.

Zhai et al. 2023, https://arxiv.org/abs/2303.15343; Tschannen et al. 2025, https://arxiv.org/abs/2502.14786
"""

from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.reading.clip import TEXT, tower_architecture
from ribcage.bundle.formats.reading.config_file import image_side, json_object
from ribcage.bundle.formats.reading.preprocessor_config import folder_preprocessing
from ribcage.bundle.formats.reading.published_weights import Evidence, Published
from ribcage.bundle.formats.reading.transformers_vision import tower_weights, vision_settings

SOURCE = "https://huggingface.co"
LICENCE = "as stated on the model card"
LAST = -1
BESIDE = "config.json"

DEFAULTS = {
    "num_attention_heads": 12,
    "image_size": 224,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
"""Settings of transformers, which config.json omits if they are unchanged."""
SCALE = (0.5,) * 3


def published(weights: dict[str, Tensor], config: Path) -> Published | None:
    """The weights under timm's names, with the preprocessing of the folder; None for other kinds of models."""
    content = json_object(config)
    if str(content.get("model_type")).startswith("siglip2"):
        raise ValueError("it is a SigLIP 2 model for images of any aspect ratio (NaFlex), which is not supported")
    settings = vision_settings(content, "siglip", DEFAULTS)
    if settings is None:
        return None
    if not settings["vision_use_head"]:
        raise ValueError("the image tower has no attention pooling (vision_use_head is false)")
    state, converted, unused = tower_weights(weights)
    name = tower_architecture(state, "siglip", settings["num_attention_heads"], settings["hidden_act"])
    steps, stated = folder_preprocessing(config.parent, image_side(settings["image_size"]), SCALE, SCALE)
    return Published(
        state,
        name=name,
        unused=unused,
        unused_because=TEXT,
        converted=converted,
        evidence=Evidence("metadata", f"{config.name}: {content['model_type']}"),
        stated=stated,
        **steps,
    )
