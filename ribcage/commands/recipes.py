"""List the recipes for published training runs (source, data, expected result, cost), or show one.

'ribcage recipes' lists all recipes, 'ribcage recipes show NAME' prints one recipe, 'ribcage run NAME' runs all steps of
a recipe, and --recipe NAME passes the options of a recipe to a training command.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.runtime.recipe import Recipe

POSITIONAL = ("action", "name")
PLACES = {"json": Place.FILE_OUT}
EXAMPLES = ("recipes", "recipes show chexnet-nih-densenet121")


@dataclass(frozen=True)
class Options:
    """List all, or show one."""

    action: Literal["list", "show"] = "list"
    """Either list (all recipes) or show (the file of recipe NAME)."""
    name: str = ""
    """Recipe to show."""
    json: Path | None = None
    """Write the list to this JSON file."""


def run(options: Options) -> "list[Recipe] | str":
    """Print; return all recipes, or the text of one."""
    from ribcage.runtime import files, recipe

    if options.action == "show" and not options.name:
        raise ValueError(
            f"'ribcage recipes show' needs the NAME of a recipe. Recipes: {', '.join(recipe.recipe_names())}."
        )
    if options.action == "list" and options.name:
        raise ValueError(
            f"'ribcage recipes list' takes no NAME. To show a recipe, run 'ribcage recipes show {options.name}'."
        )
    if options.action == "show":
        text = files.regular(recipe.recipe_file(options.name)).read_text(encoding="utf-8")
        print(text, end="")
        return text
    known = [recipe.read_recipe(name) for name in recipe.recipe_names()]
    print("\n\n".join(described(one) for one in known))
    print("\n'ribcage recipes show NAME' prints a recipe, 'ribcage run NAME --data FOLDER' runs one.")
    if options.json is not None:
        write(options.json, known)
    return known


def described(one: "Recipe") -> str:
    """A recipe in a few lines that fit the terminal."""
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size().columns, 120)
    parts = (
        ("", one.title),
        ("data", one.data),
        ("expected", one.expected),
        ("cost", one.cost),
        ("source", one.source),
    )
    lines = [one.name]
    for label, text in parts:
        first, rest = (f"  {label:<10}", " " * 12) if label else ("  ", "  ")
        lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return "\n".join(lines)


def write(file: Path, known: "list[Recipe]") -> None:
    """All recipes as JSON."""
    import dataclasses
    import json

    from ribcage.runtime import files

    text = json.dumps([dataclasses.asdict(one) for one in known], indent=1, ensure_ascii=False)
    files.write_text(file, text + "\n")
    print(f"Wrote {address_text(file)}")
