"""Limits: the valid values of command-line options."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ribcage.runtime import schedules
from ribcage.runtime.remote import addresses

Limit = tuple[str, Callable[[float], bool]]
_COUNT: Limit = ("at least 1", lambda value: value >= 1)
_POSITIVE: Limit = ("more than 0", lambda value: value > 0)
_NOT_NEGATIVE: Limit = ("0 or more", lambda value: value >= 0)
_THREADS: Limit = ("from 0 to 1,024", lambda value: 0 <= value <= 1024)
_PART: Limit = ("from 0 to less than 1", lambda value: 0 <= value < 1)
_SHARE: Limit = ("more than 0 and at most 1", lambda value: 0 < value <= 1)
_PORTION: Limit = ("from 0 to 1", lambda value: 0 <= value <= 1)
_TEMPERATURE: Limit = ("at least 1e-6", lambda value: value >= 1e-6)
_BETWEEN: Limit = ("between 0 and 1", lambda value: 0 < value < 1)
LIMITS: dict[str, Limit] = {
    **dict.fromkeys(
        ("size", "epochs", "batch", "devices", "seeds", "layers", "validate_every", "evaluate_every"), _COUNT
    ),
    "lora_rank": _COUNT,
    "lora_alpha": _POSITIVE,
    **dict.fromkeys(("lr", "min_lr", "warmup", "weight_decay", "mixup", "cutmix", "clip", "patience"), _NOT_NEGATIVE),
    **dict.fromkeys(("save_minutes", "micro_batch", "worst", "resamples"), _NOT_NEGATIVE),
    **dict.fromkeys(("drop_path", "dropout", "ema", "smoothing", "betas"), _PART),
    **dict.fromkeys(("labels", "layer_decay"), _SHARE),
    **dict.fromkeys(("feature_weight", "relation_weight"), _NOT_NEGATIVE),
    "threads": _THREADS,
    "decay_at": _BETWEEN,
    "label_weight": _PORTION,
    "temperature": _TEMPERATURE,
}
"""Limits of numeric options, by name."""


LARGEST = 2.0**63
"""Limit on the absolute value of numbers: 64 bits."""
LONG = 1000
"""Epochs of a run in which a sequence of image sizes is checked as long as the number of epochs is not known."""
SCHEDULED = ("weight_decay", "temperature")
"""Options that may be given as START:END."""
LORA = ("lora_rank", "lora_alpha", "lora_layers")
"""Options of --adapt lora."""
TEST = "test"
"""The split on which finished models are evaluated."""
MAX_INTEGER_DIGITS = 18
"""Limit on the digits of an integer in a JSON file from outside."""


class UsageError(ValueError):
    """Options of a command are invalid; the message is one line."""


def json_integer(text: str) -> int:
    """Parse an integer of JSON, for `json.loads(parse_int=…)`."""
    if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"the file contains a number with {len(text):,} digits")
    return int(text)


def allowed_failures(text: str, count: int) -> int:
    """Number of failures allowed among `count`, from 'all', a number, or a percentage such as '5%'."""
    word = text.strip()
    if word == "all":
        return count
    number = word.removesuffix("%")
    share = float(number) / 100 if word.endswith("%") else None
    if share is None:
        most = int(number)
    elif 0 <= share <= 1:
        most = int(share * count)
    else:
        raise ValueError
    if most < 0:
        raise ValueError
    return most


def failures_errors(name: str, text: str) -> list[str]:
    """Errors in an option that is parsed by `allowed_failures`."""
    try:
        allowed_failures(text, 100)
    except ValueError:
        return [f"{name} {text!r} must be a number, a percentage such as 5%, or all"]
    return []


def missing_out_errors(model: Path, out: Path | None) -> list[str]:
    """Errors of a command that writes beside the model unless --out is given: a remote model needs it."""
    needed = out is None and addresses.is_remote(model)
    return ["--out is missing: with a remote model, pass a path or address for the result"] * needed


def check_options(options: Any, more: Sequence[str] = ()) -> None:
    """Raise one UsageError with all errors in the options, and those in `more`."""
    if wrong := [*faults(options), *more]:
        raise UsageError("; ".join(wrong) + ".")


def faults(options: Any) -> list[str]:
    """Errors in numbers, findings and splits."""
    wrong: list[str] = []
    for name, (words, holds) in LIMITS.items():
        given = getattr(options, name, ())
        given = () if given is None else given
        wrong += [
            f"--{name.replace('_', '-')} {value:g} must be {words}"
            for value in (given if isinstance(given, tuple) else (given,))
            if not isinstance(value, str) and not (math.isfinite(value) and holds(value))
        ]
    wrong += [fault for name in SCHEDULED for fault in ramp_faults(name, getattr(options, name, None))]
    wrong += _size_faults(getattr(options, "size", ()), getattr(options, "epochs", None))
    if len(getattr(options, "betas", ())) not in (0, 2):
        wrong.append(f"--betas takes two numbers, not {len(options.betas)}")
    wrong += _crossed(options) if hasattr(options, "schedule") else []
    wrong += _test_split_faults(options)
    findings = getattr(options, "findings", ())
    # '-' marks an output to ignore and may repeat
    twice = [name for name in dict.fromkeys(findings) if findings.count(name) > 1 and name != "-"]
    return wrong + [f"--findings names {name} twice" for name in twice]


def ramp_faults(name: str, value: object) -> list[str]:
    """Errors in an option that is given as START:END."""
    if not isinstance(value, str):
        return []
    option, (words, holds) = f"--{name.replace('_', '-')}", LIMITS[name]
    try:
        ends = schedules.ramp(option, value)
    except ValueError as error:
        return [str(error)]
    wrong = [f"{option} {end:g} must be {words}" for end in (ends.start, ends.end) if not holds(end)]
    return wrong + [
        f"{option} {end:g} is out of range: numbers must be below {LARGEST:.2g}"
        for end in dict.fromkeys((ends.start, ends.end))
        if abs(end) >= LARGEST
    ]


def _size_faults(size: Sequence[int | str], epochs: int | None) -> list[str]:
    """Errors in --size that are not errors of a single number."""
    if any(isinstance(value, str) for value in size):
        try:
            schedules.size_stages(size, epochs or LONG)
        except ValueError as error:
            return [str(error)]
    return [f"--size takes one or two numbers, not {len(size)}"] * (len(size) > 2)


def _test_split_faults(options: Any) -> list[str]:
    """Errors in the splits of a command that fits, selects or calibrates something on them."""
    return [
        f"--{name} {TEST}: the test split must not be used to train, select or calibrate a model"
        for name in ("train", "val")
        if getattr(options, name, "") == TEST
    ]


def _crossed(options: Any) -> list[str]:
    """Errors in combinations of training options: one has no effect with the other, or they contradict."""
    least, most = options.min_lr or 0.0, math.inf if options.lr is None else options.lr
    falls = options.decay_at != type(options).decay_at
    adapt = getattr(options, "adapt", "full")
    changed = [name for name in LORA if getattr(options, name, None) != getattr(type(options), name, None)]
    lora = [f"--{name.replace('_', '-')}" for name in changed]
    wrong = {
        "--min-lr is the final rate of the cosine schedule and requires --schedule cosine": least
        and options.schedule != "cosine",
        f"--min-lr {least:g} is above --lr {most:g}": 0 <= most < least,
        "--decay-at needs --schedule step": falls and options.schedule != "step",
        f"--betas needs --optimizer adamw, not {options.optimizer}": options.betas
        and options.optimizer not in (None, "adamw"),
        "--layer-decay and --drop-path have no effect with --adapt head": adapt == "head"
        and (options.layer_decay < 1 or options.drop_path > 0),
        f"{' and '.join(lora)} without --adapt lora has no effect": lora and adapt != "lora",
    }
    return [text for text, is_so in wrong.items() if is_so]
