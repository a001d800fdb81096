"""Flags: the fields of a command's Options as command-line options.

A field's default is the option's default, and the string below a field is its help. `POSITIONAL` names the fields that
are given without an option. A command that works on a dataset or a method has `member(name)`, whose keyword arguments
become options, too, and `members()`, the available names. `PLACES`, of the command or its Options, names the
options that may be remote addresses. All errors of a command line are reported at once.
"""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import math
import sys
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal

from ribcage.runtime import files, limits, recipe
from ribcage.runtime.limits import UsageError
from ribcage.runtime.remote import addresses, places
from ribcage.runtime.spelling import nearest_word

REQUIRED: Any = object()  # the default of a required option
UNIONS = (UnionType, typing.Union)  # the types of `int | None` and `Literal[1, 3] | None`


@dataclasses.dataclass(frozen=True)
class Flag:
    """One option of a command: a field of its Options, or a keyword argument of its dataset or method."""

    name: str
    kind: Any
    default: Any
    text: str
    positional: bool = False
    of_member: bool = False
    resolved: str = ""
    """The value used if the option is not given, where it depends on other options, as text."""

    @property
    def option(self) -> str:
        """The option as typed."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return typing.get_origin(self.kind) is tuple

    @property
    def switch(self) -> bool:
        """Whether it may stand without a value."""
        return self.kind is bool or bool(self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """The values that a switch may have besides yes and no."""
        kinds = typing.get_args(self.kind) if typing.get_origin(self.kind) in UNIONS else ()
        return tuple(map(str, typing.get_args(kinds[1]))) if kinds[:1] == (bool,) else ()


# ---- the options of a command


def read_flags(module: ModuleType, words: list[str], defaults: Mapping[str, str] | None = None) -> list[Flag]:
    """The fields of Options, then the keyword arguments of the dataset or method that the first word names.

    defaults: the values of options that are not given, as text, if already known.
    """
    texts, kinds = field_texts(module), typing.get_type_hints(module.Options)
    positional: tuple[str, ...] = getattr(module, "POSITIONAL", ())
    if hasattr(module, "members"):
        texts[positional[0]] += f" One of {', '.join(module.members())}."
    flags = [
        Flag(field.name, kinds[field.name], field_default(field), texts.get(field.name, ""), field.name in positional)
        for field in dataclasses.fields(module.Options)
        if field.name != "member"
    ]
    named: list[str] | None = None
    if hasattr(module, "member") and positional:
        named = sort_words(flags, words)[0].get(positional[0])
        flags += member_flags(module.member(named[0]), known={flag.name for flag in flags}) if named else []
    if defaults is not None or hasattr(module, "defaults"):
        resolved = module.defaults(*(named or [])[:1]) if defaults is None else defaults
        flags = [dataclasses.replace(flag, resolved=resolved.get(flag.name, "")) for flag in flags]
    return flags


def field_default(field: "dataclasses.Field[Any]") -> Any:
    """A field's default, or REQUIRED."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def member_flags(function: Callable[..., Any], known: set[str]) -> list[Flag]:
    """Keyword-only parameters of a dataset's function or a method's class; `name: text` of its docstring is help."""
    texts, kinds = keyword_texts(function), hints(function)
    return [
        Flag(
            key.name,
            kinds[key.name],
            REQUIRED if key.default is key.empty else key.default,
            texts.get(key.name, ""),
            of_member=True,
        )
        for key in inspect.signature(function).parameters.values()
        if key.kind is key.KEYWORD_ONLY and key.name not in known
    ]


def keyword_function(known: Sequence[Flag], defaults: Mapping[str, Any] | None = None) -> Callable[..., None]:
    """A function whose keywords are these options: the `member` of a command that passes options on to another.

    defaults: other defaults, by option.
    """

    def options(**values: object) -> None:
        """See below."""

    options.__doc__ = "\n".join(f"{one.name}: {_text_with_default(one)}" for one in known)
    options.__annotations__ = {one.name: one.kind for one in known}
    options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_keyword(one.name, (defaults or {}).get(one.name, one.default)) for one in known]
    )
    return options


def _text_with_default(flag: Flag) -> str:
    return f"{flag.text.rstrip('.')} (default: {flag.resolved})." if flag.resolved else flag.text


def _keyword(name: str, default: Any) -> inspect.Parameter:
    kept = inspect.Parameter.empty if default is REQUIRED else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=kept)


def keyword_texts(function: Callable[..., Any]) -> dict[str, str]:
    """`name: text` of a docstring; lines that are indented further continue a text."""
    texts: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(function) or "").splitlines():
        first, colon, text = line.partition(": ")
        if colon and first.isidentifier():
            name, texts[first] = first, text
        elif name and line.startswith(" "):
            texts[name] += f" {line.strip()}"
        else:
            name = ""
    return texts


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters of a function or of a class's constructor."""
    asked: Any = vars(function)["__init__"] if isinstance(function, type) else function
    return typing.get_type_hints(asked)


def field_texts(module: ModuleType) -> dict[str, str]:
    """The string below each field of Options, own or inherited."""
    kinds: list[type] = list(reversed(module.Options.__mro__))
    return {name: text for kind in kinds[1:] for name, text in class_texts(kind).items()}


def class_texts(kind: type) -> dict[str, str]:
    """The string below each field in the body of a class."""
    tree = ast.parse(Path(str(sys.modules[kind.__module__].__file__)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    return {
        ast.unparse(field.target): " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


# ---- parsing


def parse(name: str, module: ModuleType, flags: list[Flag], words: list[str]) -> Any:
    """The Options of a command line, or one UsageError with all that is wrong."""
    words, file = take_recipe(words)
    given, wrong = sort_words(flags, words)
    named = [flag for flag in flags if not flag.positional]
    from_recipe, more = sort_words(named, recipe_words(file) if file else [])
    given, wrong = {**from_recipe, **given}, wrong + [f"{problem} in {file}" for problem in more]
    values: dict[str, Any] = {}
    for flag in flags:
        if flag.name in given:
            try:
                values[flag.name] = convert_words(flag, given[flag.name])
            except ValueError as error:
                wrong.append(str(error))
        elif flag.default is REQUIRED:
            wrong.append(f"{flag.option} is missing")
    values, misplaced = places.settled(module, values)
    wrong += misplaced
    if wrong:
        raise UsageError(f"{'; '.join(wrong)}. See 'ribcage {name} --help'.")
    member = {flag.name: values.pop(flag.name) for flag in flags if flag.of_member and flag.name in values}
    return module.Options(**values, **({"member": member} if hasattr(module, "member") else {}))


def take_recipe(words: list[str]) -> tuple[list[str], Path | None]:
    """The words without `--recipe NAME`, and the recipe's file. Options on the command line override those of the
    recipe."""
    kept, files, queue = list[str](), list[str](), list(words)
    while queue:
        word = queue.pop(0)
        if word == "--recipe":
            files.append(queue.pop(0) if queue and not is_option(queue[0]) else "")
        elif word.startswith("--recipe="):
            files.append(word.removeprefix("--recipe="))
        else:
            kept.append(word)
    if len(files) > 1 or "" in files:
        raise UsageError("--recipe needs a name or a file." if "" in files else "--recipe can be given only once.")
    if files and addresses.is_remote(files[0]):
        raise UsageError("--recipe must be a name or a local file, not a remote address.")
    try:
        return kept, recipe.recipe_file(files[0]) if files else None
    except ValueError as error:
        raise UsageError(str(error)) from None


def recipe_words(file: Path) -> list[str]:
    """The options of a recipe, a TOML file, as words of a command line."""
    try:
        values = tomllib.loads(files.regular(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"Recipe {file} does not exist.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The recipe {file} cannot be read: {error}.") from None
    strange = [
        name
        for name, value in values.items()
        if not all(isinstance(one, str | int | float) for one in (value if isinstance(value, list) else [value]))
    ]
    if strange:
        raise UsageError(
            f"{strange[0]!r} in the recipe {file} is a table or a date, but only lines such as 'lr = 0.1' are allowed."
        )
    return [word for name, value in values.items() for word in option_words(name, value)]


def plain_word(value: object) -> str:
    """A value as typed; a local copy of a remote file is written as its address."""
    return addresses.address_text(value) if isinstance(value, Path) else str(value)


def option_words(name: str, value: Any, write: Callable[[object], str] = plain_word) -> list[str]:
    """An option and its value as typed; write: see `option_line`."""
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [option if value else f"--no-{option[2:]}"]
    values = [write(one) for one in (value if isinstance(value, tuple | list) else [value])]
    if not values or any(map(is_option, values)):
        return [f"{option}={one}" for one in values or [""]]
    return [option, *values]


def sort_words(flags: list[Flag], words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The words that belong to each option, and the errors in the rest."""
    by_option = {flag.option: flag for flag in flags if not flag.positional}
    by_option |= {"--no-" + flag.option[2:]: flag for flag in by_option.values() if flag.switch}
    waiting = [flag for flag in flags if flag.positional]
    given: dict[str, list[str]] = {}
    wrong: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=")
        if is_option(word):
            flag = by_option.get(option)
            follow = [value] if equals else [] if option.startswith("--no-") and flag else take_values(queue, flag)
            if flag is None:  # the values of an unknown option are not reported as further errors
                wrong.append(unknown(option, by_option))
            elif flag.switch and equals and option.startswith("--no-"):
                wrong.append(f"{option} takes no value")
            elif flag.switch:
                given[flag.name] = [follow[-1] if any(follow) else "no" if option.startswith("--no-") else "yes"]
            else:
                given[flag.name] = given.get(flag.name, []) + follow if flag.many else follow
        elif waiting:
            flag = waiting[0] if waiting[0].many else waiting.pop(0)
            given.setdefault(flag.name, []).append(word)
        else:
            wrong.append(f"unexpected {word!r}")
    return given, wrong


def is_option(word: str) -> bool:
    """Whether a word is an option, not a value (-1 is a value)."""
    return word.startswith("-") and len(word) > 1 and not word[1].isdigit() and word[1] != "."


def take_values(queue: list[str], flag: Flag | None) -> list[str]:
    """Take an option's values off the queue: all up to the next option if it takes several (or is unknown), and for a
    switch only one of its words."""
    if flag is not None and flag.switch:
        return [queue.pop(0)] if queue and queue[0] in flag.words else []
    most = len(queue) if flag is None or flag.many else 1
    values: list[str] = []
    while queue and len(values) < most and not is_option(queue[0]):
        values.append(queue.pop(0))
    return values


def unknown(option: str, known: Iterable[str]) -> str:
    """Error message for an unknown option."""
    near = nearest_word(option, known)
    return f"unknown option {option}" + (f" (did you mean {near}?)" if near else "")


def convert_words(flag: Flag, words: list[str]) -> Any:
    """The words converted to the option's type."""
    if not words:
        raise ValueError(f"{flag.option} needs a value")
    if flag.many and words == [""]:  # --name= means an empty list
        return ()
    if flag.many:
        return tuple(parse_word(flag.option, typing.get_args(flag.kind)[0], word) for word in words)
    return parse_word(flag.option, flag.kind, words[-1])


def parse_word(option: str, kind: Any, word: str) -> Any:
    """A value of the option converted to a type; ValueError says what was expected."""
    if typing.get_origin(kind) in UNIONS:
        kinds = [each for each in typing.get_args(kind) if each is not NoneType]
        if kinds[-1] is str:  # a number, or a text with numbers in it, such as a schedule
            with contextlib.suppress(ValueError):
                return parse_word(option, kinds[0], word)
        return word if kinds[-1] is str or word in typing.get_args(kinds[-1]) else parse_word(option, kinds[0], word)
    if typing.get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if word not in choices:
            near = nearest_word(word, choices)
            hint = f" (did you mean {near}?)" if near else ""
            raise ValueError(f"{option} takes {' or '.join(choices)}, not {word!r}{hint}")
        return choices[word]
    if kind is bool:
        if word.lower() not in ("yes", "no", "true", "false", "1", "0"):
            raise ValueError(f"{option} takes yes or no, not {word!r}")
        return word.lower() in ("yes", "true", "1")
    if kind in (int, float):
        number = math.nan
        with contextlib.suppress(ValueError):
            number = kind(word)
        if abs(number) < limits.LARGEST:  # no option can be infinite, NaN or larger
            return number
        if abs(number) < math.inf:
            raise ValueError(f"{option} {word} is out of range: numbers must be below {limits.LARGEST:.2g}")
        raise ValueError(f"{option} takes a {'whole ' if kind is int else ''}number, not {word!r}")
    if kind is not Path:
        return word
    try:
        return addresses.parse_place(word).expanduser()
    except ValueError as error:
        raise ValueError(f"{option}: {str(error).removesuffix('.')}") from None


def option_line(module: ModuleType, options: Any, write: Callable[[object], str] = plain_word) -> list[str]:
    """The command-line words for which `parse` returns these options; defaults are left out.

    write: turns a value into a word. With `str`, the words name local copies of remote files instead of the addresses.
    """
    fields = {field.name: field for field in dataclasses.fields(options) if field.name != "member"}
    changed = [name for name, field in fields.items() if getattr(options, name) != field_default(field)]
    placed = list(getattr(module, "POSITIONAL", ()))
    while placed and placed[-1] not in changed:
        placed.pop()
    words: list[str] = []
    for name in placed:
        value = getattr(options, name)
        words += map(write, value) if isinstance(value, tuple) else [write(value)]
    named = {name: getattr(options, name) for name in changed if name not in placed}
    for name, value in {**dict(getattr(options, "member", {})), **named}.items():
        words += option_words(name, value, write) if value is not None else []
    return words
