"""Usage: the lines of Python that open a bundle's weights, with timm alone where its model fits."""

from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.weights import timm_options


def usage_lines(spec: ModelSpec, *, plain: bool) -> list[str]:
    """The lines for this model; plain: its weights fit timm's model of this name."""
    if spec.detector:
        return _of_detector()
    if spec.opaque:
        return _of_ribcage(f"{spec.opaque.file} can also be run by its own runtime", "")
    if spec.members:
        return _of_ribcage("an ensemble is not a timm model")
    return _of_timm(spec) if plain else _of_ribcage(f"timm's {spec.name} has another head")


def _of_timm(spec: ModelSpec) -> list[str]:
    name, channels, count = spec.name, spec.channels, len(spec.findings)
    more = timm_options(name, spec.size, spec.pool)
    options = "".join(
        f', {key}="{value}"' if isinstance(value, str) else f", {key}={value}" for key, value in more.items()
    )
    return [
        *(["import ribcage.models.architectures  # registers this architecture with timm"] if _ours(name) else []),
        "import timm, safetensors.torch",
        f'model = timm.create_model("{name}", in_chans={channels}, num_classes={count}{options})',
        'model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
    ]


def _of_ribcage(reason: str, more: str = "; model.backbone(images): features") -> list[str]:
    """For a model that is not one of timm's."""
    return [
        f"from ribcage.bundle.io import load_bundle  # {reason}",
        'opened = load_bundle(".")  # this folder',
        f"model = opened.method  # model.logits(images): predictions{more}",
    ]


def _of_detector() -> list[str]:
    return [
        "from ribcage.bundle.io import load_detector",
        "from ribcage.inference import gradcam",
        'opened = load_detector(".")  # this folder',
        "found = gradcam.as_detector(opened).found(images)  # per image: boxes x0, y0, x1, y1 in px, findings, scores",
    ]


def _ours(name: str) -> bool:
    """Whether the architecture is Ribcage's and not timm's."""
    import timm

    return timm.model_entrypoint(name.split(".")[0]).__module__.startswith("ribcage.")
