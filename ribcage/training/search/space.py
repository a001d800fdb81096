"""Search space: the options that a search varies, with their ranges or choices.

lr=1e-5..1e-2:log      a range, sampled uniformly in the logarithm
weight-decay=0..0.1    a range, sampled uniformly
epochs=5..20           whole numbers, as the option takes only these; :int asks for them elsewhere
augment=gentle,strong  choices; a choice of an option with several values has them separated by spaces
"""

import contextlib
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING

from ribcage.runtime import flags, limits
from ribcage.runtime.flags import UNIONS, Flag
from ribcage.runtime.spelling import nearest_word

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = float | int | str
"""A value as the search records it: a number, or a choice as typed."""
SUFFIXES = ("log", "int")
SAME_VALIDATION = "trials with different values would be validated differently and could not be compared"
SAME_TRAINING = "all trials must be trained on images of the same split and with the same labels"
NO_EFFECT = ("devices", "threads", "save_minutes", "log_format", "export_as", "track", "track_images")
FIXED = {
    **dict.fromkeys(("val", "findings", "frontal", "drop_shared", "policy"), SAME_VALIDATION),
    **dict.fromkeys(("train", "labels", "drop_copies"), SAME_TRAINING),
    **dict.fromkeys(("data", "out", "resume", "seed"), "the search sets it"),
    **dict.fromkeys(NO_EFFECT, "it does not affect the model"),
    "allow_leak": "no trial may use a teacher that was trained on validation images",
}
"""Options that a search cannot vary, and why. All options by which a command selects images or labels are here."""


@dataclass(frozen=True)
class Range:
    """An option whose values lie between two numbers."""

    flag: Flag
    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, trial: "Trial") -> None:
        """Draw a value for a trial that has none yet."""
        if self.whole:
            trial.suggest_int(self.flag.name, int(self.low), int(self.high), log=self.log)
        else:
            trial.suggest_float(self.flag.name, self.low, self.high, log=self.log)

    def option_value(self, value: Value) -> object:
        """A sampled number as the value of the option."""
        number = int(value) if self.whole else float(value)
        return (number,) if self.flag.many else number

    def extremes(self) -> list[Value]:
        """Values whose validity implies that of all others."""
        return [self.low, self.high]

    def text(self) -> str:
        """The range as typed."""
        ends = f"{plain_number(self.low)}..{plain_number(self.high)}"
        return ends + ":log" * self.log + ":int" * (self.whole and number_kind(self.flag.kind) is float)


@dataclass(frozen=True)
class Choices:
    """An option with a list of values."""

    flag: Flag
    words: tuple[str, ...]

    def draw(self, trial: "Trial") -> None:
        """Draw a value for a trial that has none yet."""
        trial.suggest_categorical(self.flag.name, self.words)

    def option_value(self, value: Value) -> object:
        """A choice as the value of the option."""
        return chosen_value(self.flag, str(value))

    def extremes(self) -> list[Value]:
        """Values whose validity implies that of all others: every choice."""
        return list(self.words)

    def text(self) -> str:
        """The choices as typed."""
        return ",".join(self.words)


Dimension = Range | Choices


def read_space(words: Sequence[str], known: Sequence[Flag]) -> list[Dimension]:
    """The dimensions of --space; one ValueError with all that is wrong."""
    by_name = {flag.name: flag for flag in known if not flag.positional}
    space: list[Dimension] = []
    wrong = [] if words else ["--space is missing: pass at least one option with its values, as in lr=1e-5..1e-2:log"]
    for word in words:
        try:
            space.append(_dimension(word, by_name))
        except ValueError as error:
            wrong.append(f"--space {word}: {error}")
    names = [one.flag.name for one in space]
    wrong += [f"--space lists {name} twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if wrong:
        raise ValueError("; ".join(wrong) + ".")
    return space


def space_faults(space: Sequence[Dimension], faults: Callable[[Mapping[str, object]], Sequence[str]]) -> list[str]:
    """Errors in the values of single dimensions, which `faults` finds in changed options."""
    before = set(faults({}))
    found = [
        f"--space {one.flag.name}={one.text()}: {error}"
        for one in space
        for value in one.extremes()
        for error in faults({one.flag.name: one.option_value(value)})
        if error not in before
    ]
    return list(dict.fromkeys(found))


def _dimension(word: str, known: Mapping[str, Flag]) -> Dimension:
    """One word of --space; ValueError says what is wrong."""
    typed, equals, text = word.partition("=")
    name = typed.removeprefix("--").replace("-", "_")
    if not equals or not text:
        raise ValueError("a dimension must have the form NAME=LOW..HIGH or NAME=A,B,C")
    if name in FIXED:
        raise ValueError(f"{typed} cannot be varied: {FIXED[name]}")
    if name not in known:
        near = nearest_word(name, set(known) - set(FIXED))
        raise ValueError(f"unknown option {typed}" + (f" (did you mean {near.replace('_', '-')}?)" if near else ""))
    found = re.fullmatch(r"(.+?)\.\.(.+?)((?::\w*)*)", text)
    return _range(known[name], found[1], found[2], found[3]) if found else _choices(known[name], text)


def _range(flag: Flag, first: str, last: str, suffix: str) -> Range:
    kind, suffixes = number_kind(flag.kind), suffix.split(":")[1:]
    if kind is None:
        raise ValueError(f"{flag.option} does not take numbers: list its values as {flag.name}=A,B,C")
    if unknown := [word for word in suffixes if word not in SUFFIXES]:
        raise ValueError(f"the suffix :{unknown[0]} is unknown; a range accepts :log and :int")
    whole = kind is int or "int" in suffixes
    low, high = (_number(word, whole) for word in (first, last))
    if low >= high:
        raise ValueError(f"the lower end of the range, {first}, must be below the upper end, {last}")
    if "log" in suffixes and low <= 0:
        raise ValueError(f"a range with :log must begin above 0, but begins at {first}")
    return Range(flag, low, high, "log" in suffixes, whole)


def _number(word: str, whole: bool) -> float:
    with contextlib.suppress(ValueError):
        number = float(word)
        if math.isfinite(number) and abs(number) < limits.LARGEST and (not whole or number.is_integer()):
            return int(number) if whole else number
    raise ValueError(f"{word!r} is not a {'whole ' if whole else ''}number")


def _choices(flag: Flag, text: str) -> Choices:
    words = tuple(word.strip() for word in text.split(","))
    if len(words) < 2:
        raise ValueError(f"{flag.option} needs a range, LOW..HIGH, or at least two values, A,B")
    if twice := [word for word in dict.fromkeys(words) if words.count(word) > 1]:
        raise ValueError(f"the value {twice[0]!r} is listed twice")
    for word in words:
        chosen_value(flag, word)
    return Choices(flag, words)


def chosen_value(flag: Flag, word: str) -> object:
    """The value of an option from the text of a choice; ValueError says what was expected."""
    return flags.convert_words(flag, word.split() if flag.many else [word])


def number_kind(kind: object) -> type | None:
    """int or float for an option that takes such numbers, else None."""
    if typing.get_origin(kind) is tuple:
        return number_kind(typing.get_args(kind)[0])
    if typing.get_origin(kind) in UNIONS:
        (*kinds,) = (one for one in typing.get_args(kind) if one not in (NoneType, str))
        return number_kind(kinds[0]) if len(kinds) == 1 else None
    return kind if kind in (int, float) else None


def plain_number(value: float) -> str:
    """A number as one would type it."""
    return str(value) if isinstance(value, int) else f"{value:g}" if float(f"{value:g}") == value else repr(value)
