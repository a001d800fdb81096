"""Make radiographs up, import them and look at them: the first minute, without any data of one's own.

Needs no network and no data; what it does can be typed command by command.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How much to make, and where."""

    out: Path = Path("demo")
    """The folder for everything the demo makes."""
    pictures: int = 2000
    """How many radiographs to make up."""
    size: int = 256
    """Their side in pixels."""
    seed: int = 0
    """Another seed, other patients."""


def run(options: Options) -> None:
    """Import the phantom, inspect it."""
    from ribcage.commands import import_, inspect

    folder, sheet = options.out / "phantom", options.out / "inspect.html"
    made = {"pictures": options.pictures, "seed": options.seed}
    flags = " ".join(f"--{name} {value}" for name, value in made.items())
    step(f"ribcage import phantom --out {folder} --size {options.size} {flags}")
    import_.run(import_.Options("phantom", out=folder, size=options.size, member=made))
    step(f"ribcage inspect {folder} --html {sheet}")
    inspect.run(inspect.Options((str(folder),), html=sheet))
    print(f"\nOpen {sheet.resolve().as_uri()} in a browser.")


def step(command: str) -> None:
    """Show the command that does the same."""
    print(f"\n$ {command}", flush=True)
