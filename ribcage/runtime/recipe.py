"""Recipes: published trainings as files of options, whose heads give the commands, the expected result and the cost.

# What it trains.
#
#   ribcage finetune --recipe NAME --data data/nih --out runs/NAME       every step, one to a line
#
# Data: …      Source: …      Expected: …      Cost: …                   each begins a line
#
# Further notes.
model = "densenet121"                                                    the options, as TOML
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ribcage.runtime import files
from ribcage.runtime.spelling import did_you_mean

FOLDER = Path(__file__).parents[1] / "recipes"
LABELS = ("data", "source", "expected", "cost")


@dataclass(frozen=True)
class Recipe:
    """The header of a recipe."""

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    """The commands in order, as words after `ribcage`."""
    data: str
    source: str
    expected: str
    cost: str

    @property
    def training(self) -> tuple[str, ...]:
        """The command that takes its options from this recipe."""
        return next(words for words in self.commands if self.name in _recipes_of(words))


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with Ribcage."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def recipe_file(word: str) -> Path:
    """The file of a recipe, from a path or the name of one that comes with Ribcage."""
    given = Path(word).expanduser()
    if word in recipe_names():
        return FOLDER / f"{word}.toml"
    if given.suffix != ".toml" and not given.is_file():
        raise ValueError(
            f"Unknown recipe {word!r}.{did_you_mean(word, recipe_names())} Run 'ribcage recipes' to list all recipes."
        )
    return given


def read_recipe(word: str) -> Recipe:
    """The recipe with this name or path."""
    found = recipe_file(word)
    try:
        lines = files.regular(found).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        raise ValueError(f"Unknown recipe {word!r}. Run 'ribcage recipes' to list all recipes.") from None
    head = [line.removeprefix("#").removeprefix(" ") for line in lines if line.startswith("#")]
    labelled = _labelled(head)
    return Recipe(
        name=word if found.parent == FOLDER else str(found),
        title=" ".join(_until_blank(head)),
        commands=tuple(tuple(shlex.split(line)[1:]) for line in head if line.startswith("  ribcage ")),
        **{label: labelled.get(label, "") for label in LABELS},
    )


def leaves(run: str) -> str:
    """The recipe that comes with Ribcage whose commands make this run; "" if none."""
    made = ((name, words) for name in recipe_names() for words in read_recipe(name).commands)
    return next((name for name, words in made if run in _values(words, "--out")), "")


def _until_blank(lines: list[str]) -> list[str]:
    blank = lines.index("") if "" in lines else len(lines)
    return lines[:blank]


def _labelled(lines: list[str]) -> dict[str, str]:
    """The texts after 'Data:' and the other labels, each up to the next label or blank line."""
    found: dict[str, str] = {}
    label = ""
    for line in lines:
        begun = re.match(rf"({'|'.join(LABELS)}): ", line, re.IGNORECASE)
        label = begun[1].lower() if begun else label if line else ""
        if label:
            found[label] = f"{found.get(label, '')} {line[begun.end() :] if begun else line}".strip()
    return found


def _values(words: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The values of an option."""
    return tuple(words[place + 1] for place, word in enumerate(words[:-1]) if word == option)


def _recipes_of(words: tuple[str, ...]) -> tuple[str, ...]:
    return _values(words, "--recipe")
