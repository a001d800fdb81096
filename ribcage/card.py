"""Card: what a person should know of a model before using it, written from its facts."""

from typing import Any


def write(model: dict[str, Any]) -> str:
    """The card as Markdown, from what model.json holds."""
    name, findings, trained = model["name"], model["findings"], model["training"]
    (height, width), channels = model["size"], model["channels"]
    options, shared = _options(model), trained.get("shared_patients", 0)
    square = f"made square ({model['fit']}) at {model['stored']} px, resized to {height} × {width}"
    scaled = f"scaled to 0 … 1, then (x − {model['mean']:g}) / {model['std']:g}"
    lines = [
        f"# {name} for {len(findings)} findings on chest radiographs"
        if findings
        else f"# {name}, pretrained on chest radiographs",
        "",
        "**Research use only.** Not a medical device; not evaluated for any patient.",
        "",
        f"Findings: {', '.join(findings)}."
        if findings
        else f"A backbone without a head, learnt by {trained['method']}.",
        "",
        "## Data",
        "",
        *(_source(one) for one in model["data"]),
        f"- learnt from {trained['pictures']:,} pictures of {trained['patients']:,} patients"
        + (f", chosen by {trained['selection']:,} others" if findings else ""),
        *([f"- **{shared:,} patients are among both**: validation flatters the model"] if shared else []),
        "",
        "## A picture on its way in",
        "",
        f"Gray, {square}, {scaled}; {channels} channel{'s' * (channels > 1)}.",
        "",
        *(_validation(model) if findings else _features(model)),
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


def _source(one: dict[str, Any]) -> str:
    """A data set in a line."""
    before = ", before that" if one.get("before") else ""
    return f"- {one['name']}{before}: {one['source']} (licence: {one['licence']})"


def _validation(model: dict[str, Any]) -> list[str]:
    said = "Chosen by these very numbers: they flatter the model. `ribcage evaluate` on a test part gives honest ones."
    return ["## Validation", "", *_table(model["metrics"].get("validation", {})), "", said, ""]


def _features(model: dict[str, Any]) -> list[str]:
    """What was seen of the features in the end."""
    found = model["metrics"].get("features", {})
    rows = [f"| {name} | {value:.3f} |" for name, value in found.items()]
    return ["## Features", "", "| | |", "|---|---|", *rows, ""] if rows else []


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
