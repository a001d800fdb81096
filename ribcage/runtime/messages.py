"""Messages: what a command prints about its data and options, and whether it is a warning."""

from dataclasses import dataclass

_WARNING = "WARNING: "


@dataclass(frozen=True)
class Message:
    """A sentence on the terminal."""

    text: str
    warning: bool = False

    def __str__(self) -> str:
        """The printed form; `parse` reads it."""
        return f"{_WARNING}{self.text}" if self.warning else self.text

    @classmethod
    def parse(cls, line: str) -> "Message":
        """A message from its printed form."""
        return cls(line.removeprefix(_WARNING), line.startswith(_WARNING))
