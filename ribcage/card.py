"""Card: what a person should know of a model before using it, written from its facts."""

from typing import Any


def write(model: dict[str, Any]) -> str:
    """The card as Markdown, from what model.json holds."""
    name, findings, trained = model["name"], model["findings"], model["training"]
    (height, width), channels = model["size"], model["channels"]
    options = _options(model)
    square = f"made square ({model['fit']}) at {model['stored']} px, resized to {height} × {width}"
    scaled = f"scaled to 0 … 1, then (x − {model['mean']:g}) / {model['std']:g}"
    lines = [
        f"# {name} for {len(findings)} findings on chest radiographs",
        "",
        "**Research use only.** Not a medical device; not evaluated for any patient.",
        "",
        f"Findings: {', '.join(findings)}.",
        "",
        "## Data",
        "",
        *(f"- {one['name']}: {one['source']} (licence: {one['licence']})" for one in model["data"]),
        f"- learnt from {trained['pictures']:,} pictures of {trained['patients']:,} patients, chosen by "
        f"{trained['selection']:,} others",
        "",
        "## A picture on its way in",
        "",
        f"Gray, {square}, {scaled}; {channels} channel{'s' * (channels > 1)}.",
        "",
        "## Validation",
        "",
        *_table(model["metrics"].get("validation", {})),
        "",
        "Chosen by these very numbers: they flatter the model. `ribcage evaluate` on a test part gives honest ones.",
        "",
        "## Use",
        "",
        "```python",
        *(["import ribcage.backbones  # which makes this one known to timm"] if _ours(name) else []),
        "import timm, safetensors.torch",
        f'model = timm.create_model("{name}", in_chans={channels}, num_classes={len(findings)}{options})',
        'model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _ours(name: str) -> bool:
    """Whether the architecture is not timm's but the project's."""
    import timm

    return timm.model_entrypoint(name.split(".")[0]).__module__.startswith("ribcage.")


def _options(model: dict[str, Any]) -> str:
    """What else timm must be told."""
    import timm

    config: Any = timm.get_pretrained_cfg(model["name"])
    sized = f", img_size={tuple(model['size'])}" if config.fixed_input_size else ""
    return sized + (f', global_pool="{model["pool"]}"' if model["pool"] else "")


def _table(scores: dict[str, float]) -> list[str]:
    rows = [
        f"| {name.removeprefix('auroc_').replace('auroc', 'mean')} | {score:.3f} |" for name, score in scores.items()
    ]
    return ["| finding | AUROC |", "|---|---|", *rows]
