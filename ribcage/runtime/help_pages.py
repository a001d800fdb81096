"""Help pages: the options of a command in groups, with types and defaults, common ones first.

The options of a method or dataset are read from `own_options.json`, which `make generate` writes, so that a help page
does not import torch. If its file has changed since, or is not listed, they are read from the file itself.
"""

import hashlib
import inspect
import json
import shutil
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ribcage.runtime import flags
from ribcage.runtime.flags import REQUIRED, UNIONS, Flag
from ribcage.runtime.spelling import count_phrase

GENERATED = Path(__file__).with_name("own_options.json")
GROUPS = {
    "Data": (
        *(
            "data",
            "train",
            "val",
            "split",
            "findings",
            "labels",
            "counts",
            "policy",
            "frontal",
            "data_weights",
            "sampling",
            "shuffle",
            "drop_copies",
            "share",
            "balance",
            "prototypes",
            "features",
        ),
        *(
            "drop_shared",
            "split_list",
            "masks",
            "size",
            "fit",
            "depth",
            "window",
            "link",
            "part",
            "images_per_shard",
            "limit",
            "name",
        ),
        "images",
    ),
    "Model": (
        *(
            "model",
            "init",
            "channels",
            "pool",
            "layers",
            "dropout",
            "drop_path",
            "adapt",
            "lora_rank",
            "lora_alpha",
            "lora_layers",
            "prior",
            "mean",
            "std",
            "partial",
            "layout",
        ),
        *("to", "int8", "int8_images", "classes", "list", "baselines", "input_size"),
    ),
    "Opaque networks": ("value_range", "input_layout", "output_name", "output_kind", "exclusive"),
    "Detector": (
        *("head", "head_width", "head_depth", "quality", "anchors", "nms_iou", "max_detections", "cam_threshold"),
    ),
    "Distillation": (
        *("teacher", "teacher_weights", "teacher_mode", "label_weight", "distil_loss", "temperature", "feature_weight"),
        *("relation_weight",),
    ),
    "Augmentation": ("augment", "augment_options", "mixup", "cutmix"),
    "Optimisation": (
        *("epochs", "batch", "micro_batch", "lr", "optimizer", "weight_decay", "schedule", "warmup", "min_lr"),
        *("decay_at", "betas", "layer_decay", "clip", "ema", "precision"),
        *("pretrain_epochs", "distil_epochs", "localise_epochs"),
    ),
    "Loss": ("loss", "balanced", "smoothing"),
    "Validation": ("validate_every", "keep", "patience", "probe", "evaluate_every", "greedy"),
    "Evaluation": (
        *("on", "rule", "thresholds", "min_score", "protocol", "ten_crop", "resamples", "worst", "allow_leak", "seeds"),
        *("tolerance", "forecast"),
    ),
    "Search": ("space", "trials", "prune"),
    "Prediction": (),
    "Audit": ("near_duplicates", "samples"),
    "Timing": ("latency", "runs"),
    "Saliency maps": ("maps", "map_findings", "map_method", "map_layer", "sheet", "check_maps"),
    "Server": (
        *("host", "port", "token_file", "batch_delay", "workers", "max_requests", "max_files", "max_megabytes"),
        *("max_megapixels", "max_seconds"),
    ),
    "Output": (
        *("out", "log_predictions", "table", "html", "json", "notes", "export_as", "log_format", "track"),
        *("track_images", "formats"),
    ),
    "Run": (
        *(
            "recipe",
            "resume",
            "devices",
            "threads",
            "engine",
            "seed",
            "save_minutes",
            "compile",
            "checkpoint_activations",
            "shard",
            "cache",
            "cache_gb",
        ),
        *("allow_rejected", "allow_unread", "redo", "quick", "serve", "download", "dry_run"),
    ),
}
"""Which group an option belongs to, by its name; a command's own `GROUPS` (option → group) takes precedence, and those
in no group come last."""
COMMON = frozenset(
    (
        *("data", "out", "model", "init", "findings", "size", "epochs", "batch", "lr", "augment", "devices", "seed"),
        *("resume", "teacher", "head", "split", "html", "policy", "val", "train", "labels", "adapt", "loss", "maps"),
        *(
            "rule",
            "threads",
            "to",
            "port",
            "table",
            "precision",
            "max_detections",
            "quick",
            "recipe",
            "space",
            "trials",
        ),
    )
)
"""Options of long commands that `--help` shows; `--help-all` shows all."""
MANY = 30
"""Commands with more options than this show only the common ones on `--help`."""
LEFT, LEAST, MOST = 30, 40, 90
"""Column where the text begins; minimum and maximum width of the text."""


@dataclass(frozen=True)
class HelpEntry:
    """One option on a help page."""

    name: str
    option: str
    value: str
    """N, X, PATH, a|b …; empty for a switch or an argument."""
    text: str
    required: bool = False

    def lines(self) -> str:
        """The option, its value and its text, wrapped."""
        head = f"  {self.option} {self.value}".rstrip()
        width = max(LEAST, min(shutil.get_terminal_size().columns - LEFT, MOST))
        first, *rest = textwrap.wrap(self.text, width, break_on_hyphens=False) or [""]
        begin = f"{head:<{LEFT - 2}}  {first}" if len(head) <= LEFT - 2 else f"{head}\n{'':{LEFT}}{first}"
        return "\n".join([begin.rstrip(), *(f"{'':{LEFT}}{line}" for line in rest)])


RECIPE = HelpEntry(
    "recipe",
    "--recipe",
    "NAME",
    "Recipe or TOML file from which options are read; options on the command line take precedence.",
)
"""What every command that trains takes as well."""


def help_entry(flag: Flag) -> HelpEntry:
    """A flag as shown on a help page."""
    value = "" if flag.kind is bool or flag.positional else value_name(flag.kind)
    value = f"[{'|'.join(flag.words)}]" if flag.words else value
    required = flag.default is REQUIRED
    return HelpEntry(flag.name, flag.option, value, flag.text + _ending(flag), required)


def _ending(flag: Flag) -> str:
    """(required), or the default."""
    if flag.default is REQUIRED:
        return "" if flag.positional else " (required)"
    if flag.default is True:
        return f" (default: on; --no-{flag.option[2:]} turns it off)"
    shown = flag.resolved or (
        "" if flag.default in (None, (), "") or flag.default is False else typed_default(flag.default)
    )
    return f" (default: {shown})" if shown and "(default:" not in flag.text else ""


def typed_default(default: object) -> str:
    """A default as one would type it."""
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def value_name(kind: Any) -> str:
    """Placeholder of a value: N for whole numbers, X for other numbers, PATH, TEXT, or the choices."""
    if typing.get_origin(kind) is tuple:
        return value_name(typing.get_args(kind)[0]) + " …"
    if typing.get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in typing.get_args(kind) if choice != "")
    if typing.get_origin(kind) in UNIONS:
        return value_name(typing.get_args(kind)[0])
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def help_page(name: str, module: ModuleType, words: Sequence[str], *, everything: bool = False) -> str:
    """The text of `ribcage NAME … --help`, or with `everything` of --help-all."""
    member = _member(module, words)
    command = flags.read_flags(module, [], defaults=own_defaults(name, module, member))
    arguments = [flag for flag in command if flag.positional]
    unavailable = getattr(module, "UNAVAILABLE", ())
    named = [help_entry(flag) for flag in command if not flag.positional and flag.name not in unavailable]
    own = own_entries(name, module, member, {flag.name for flag in command}) if member else []
    chosen = [one for one in named if everything or len(named) <= MANY or one.required or one.name in COMMON]
    usage = " ".join([name, *map(usage_word, arguments)])
    blocks = [f"usage: ribcage {usage} [options]", "", wrapped(inspect.getdoc(module) or ""), ""]
    for title, entries in (
        ("Arguments", list(map(help_entry, arguments))),
        *grouped(
            [*chosen, *([RECIPE] if {"resume", "space"} & {one.name for one in named} else [])],
            getattr(module, "GROUPS", {}),
        ),
        (f"Options of {member}", own),
    ):
        blocks += [f"{title}:", *(one.lines() for one in entries), ""] if entries else []
    if examples := getattr(module, "EXAMPLES", ()):
        blocks += ["Examples:", *(f"  ribcage {example}" for example in examples), ""]
    if len(chosen) < len(named):
        blocks.append(
            f"{count_phrase(len(named) - len(chosen), 'more option')}: ribcage {name} {member}".rstrip() + " --help-all"
        )
    return "\n".join(blocks).rstrip()


def wrapped(text: str) -> str:
    """The paragraphs of a text at the width of the terminal."""
    width = max(LEFT + LEAST, min(shutil.get_terminal_size().columns, LEFT + MOST))
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n\n".join(textwrap.fill(paragraph, width, break_on_hyphens=False) for paragraph in paragraphs)


def usage_word(flag: Flag) -> str:
    """An argument in the usage line: in brackets if it may be left out, with … if there may be several."""
    word = f"{flag.option} …" if flag.many else flag.option
    return word if flag.default is REQUIRED else f"[{word}]"


def grouped(entries: Iterable[HelpEntry], moved: Mapping[str, str]) -> list[tuple[str, list[HelpEntry]]]:
    """The options by their groups, each in the order of its group; moved: option → another group."""
    left = {one.name: one for one in entries}
    found = []
    for title, usual in GROUPS.items():
        names = [name for name in usual if moved.get(name, title) == title]
        names += [name for name, group in moved.items() if group == title and name not in names]
        found.append((title, [left.pop(name) for name in names if name in left]))
    return [*found, ("Other options", list(left.values()))]


# ---- options of a method or a dataset


def _member(module: ModuleType, words: Sequence[str]) -> str:
    """The method or dataset named on the command line; "" if none."""
    if not hasattr(module, "member") or not getattr(module, "POSITIONAL", ()):
        return ""
    positional = flags.read_flags(module, [])
    named = flags.sort_words(positional, list(words))[0].get(module.POSITIONAL[0])
    return named[0] if named else ""


def own_entries(command: str, module: ModuleType, member: str, known: set[str]) -> list[HelpEntry]:
    """The options of a method or dataset, generated or read from its file."""
    if found := _generated(command, module, member):
        return [HelpEntry(**one) for one in found["options"]]
    return _member_entries(module, member, known)


def _member_entries(module: ModuleType, member: str, known: set[str]) -> list[HelpEntry]:
    """The options of a method or dataset, read from its file, with the defaults that the command gives them."""
    resolved = module.defaults(member) if hasattr(module, "defaults") else {}
    own = flags.member_flags(module.member(member), known=known)
    return [help_entry(replace(flag, resolved=resolved.get(flag.name, ""), text=sentence(flag.text))) for flag in own]


def sentence(text: str) -> str:
    """A line of a docstring as a sentence; a value that it begins with keeps its case."""
    first, _, rest = text.partition(" ")
    return f"{first if first.endswith(':') else first[:1].upper() + first[1:]} {rest}".strip().rstrip(".") + "."


def own_defaults(command: str, module: ModuleType, member: str) -> dict[str, str]:
    """Values that the command's options have with this method or dataset when not given, as text."""
    if not hasattr(module, "defaults"):
        return {}
    if member and (found := _generated(command, module, member)):
        return dict(found["defaults"])
    return dict(module.defaults(*[member][: bool(member)]))


def _generated(command: str, module: ModuleType, member: str) -> Any:
    """The entry of a method or dataset in `own_options.json`, unless its file has changed since."""
    if not hasattr(module, "member_file"):
        return None
    try:
        found = json.loads(GENERATED.read_text(encoding="utf-8"))[command][member]
        return found if found["file"] == digest(module.member_file(member)) else None
    except (OSError, ValueError, KeyError):
        return None


def digest(file: Path) -> str:
    """A hash of a source file that does not depend on its line endings."""
    return hashlib.blake2b(file.read_text(encoding="utf-8").encode(), digest_size=8).hexdigest()


def generated(command: str, module: ModuleType, members: Iterable[str]) -> dict[str, Any]:
    """The content of `own_options.json` for these methods or datasets."""
    known = {flag.name for flag in flags.read_flags(module, [])}
    return {
        member: {
            "file": digest(module.member_file(member)),
            "options": [asdict(one) for one in _member_entries(module, member, known)],
            "defaults": module.defaults(member) if hasattr(module, "defaults") else {},
        }
        for member in members
    }
