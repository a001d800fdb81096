"""Transformers: the folder of a CLIP model, of which the image tower is read.

    config.json                 model_type clip or clip_vision_model
    model.safetensors           vision_model.encoder.layers.N.*; the text tower and the projections are left out
    preprocessor_config.json    sizes and normalisation of the images; without it, that of OpenAI is assumed

The feature is the class token after the last norm (`pooler_output`), before the projection. The activation is that of
`hidden_act`: x sigmoid(1.702 x) for OpenAI's models. Radford et al. 2021, https://arxiv.org/abs/2103.00020
"""

from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.open_clip import MEAN, STD
from ribcage.bundle.formats.reading.clip import TEXT, tower_architecture
from ribcage.bundle.formats.reading.config_file import image_side, json_object
from ribcage.bundle.formats.reading.preprocessor_config import folder_preprocessing
from ribcage.bundle.formats.reading.published_weights import Evidence, Published
from ribcage.bundle.formats.reading.transformers_vision import tower_weights, vision_settings

SOURCE = "https://huggingface.co"
LICENCE = "as stated on the model card"
LAST = -1
BESIDE = "config.json"

DEFAULTS = {"num_attention_heads": 12, "image_size": 224, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
"""Settings of transformers, which config.json omits if they are unchanged."""


def published(weights: dict[str, Tensor], config: Path) -> Published | None:
    """The weights under timm's names, with the preprocessing of the folder; None for other kinds of models."""
    content = json_object(config)
    settings = vision_settings(content, "clip", DEFAULTS)
    if settings is None:
        return None
    state, converted, unused = tower_weights(weights)
    name = tower_architecture(state, "clip", settings["num_attention_heads"], settings["hidden_act"])
    steps, stated = folder_preprocessing(config.parent, image_side(settings["image_size"]), MEAN, STD)
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
