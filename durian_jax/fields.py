"""Checks of a dataclass's fields: types, ranges and names, whether the values come from a file, a flag or Python.

A dataclass that is read from a file says what its fields may be, and calls `check_fields` first in `__post_init__`:

    layers: Annotated[int, Range(1, 256)] = 1
    mode: Annotated[str, OneOf(MODES)] = "joint"
    channels: Annotated[tuple[Width, ...], Items(1, 8)] = (64,)

An annotation without metadata is checked, too: numbers are finite, and True is no integer.
"""

import math
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union

from durian_jax.errors import InputError, listed, shown


class FieldError(InputError):
    """A field with a value that it cannot have.

    Attributes:
        field: the field's path, such as "model.unet.layers"; "": the whole.
        problem: what was expected and found.
    """

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field, self.problem = field, problem

    def inside(self, outer: str) -> "FieldError":
        """Return the same error for a field of `outer`."""
        return type(self)(f"{outer}.{self.field}" if self.field else outer, self.problem)


class UnknownField(FieldError):
    """A field that the dataclass does not have: it is misspelt, or the file is newer than the program."""


@contextmanager
def inside(outer: str) -> Iterator[None]:
    """Name the field that contains the fields of a block in their errors."""
    try:
        yield
    except FieldError as error:
        raise error.inside(outer) from error


@contextmanager
def in_file(path: str | Path, advice: str) -> Iterator[None]:
    """Name the file that contains the fields of a block in their errors, and say what to do.

    Raises:
        InputError: in place of a FieldError of the block.
    """
    try:
        yield
    except FieldError as error:
        raise InputError(f"{path}: {error}; {advice}") from error


# --- what a field may be -------------------------------------------------------------------------------

@dataclass(frozen=True)
class Range:
    """Smallest and largest number, both included unless `open` excludes the smallest."""

    least: float = -math.inf
    most: float = math.inf
    open: bool = False

    def accepts(self, value: Any) -> bool:
        """Return whether a number is in the range."""
        return (self.least < value if self.open else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        least, most = (f"{int(x)}" if math.isfinite(x) and x == int(x) else f"{x:g}" for x in (self.least, self.most))
        if self.open:
            return f" above {least}" + (f" and at most {most}" if math.isfinite(self.most) else "")
        if math.isinf(self.least):
            return f" of at most {most}" if math.isfinite(self.most) else ""
        return f" from {least} to {most}" if math.isfinite(self.most) else f" of at least {least}"


@dataclass(frozen=True)
class OneOf:
    """The values that a text may have."""

    values: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether a text is one of them."""
        return value in self.values

    def __str__(self) -> str:
        return f" that is one of {', '.join(self.values)}"


@dataclass(frozen=True)
class Items:
    """Smallest and largest number of entries of a list."""

    least: int = 0
    most: int = 4096

    def accepts(self, value: Any) -> bool:
        """Return whether a list has this length."""
        return self.least <= len(value) <= self.most

    def __str__(self) -> str:
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f" of {count} entries"


# Files may lack a field with this mark, because version 0.1 wrote no such field. It keeps its default.
OPTIONAL = "optional"

Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1, 10**9)]
NotNegative = Annotated[float, Range(0, 1e9)]
Positive = Annotated[float, Range(0, 1e9, open=True)]
# Sizes of networks. The limits catch damage; the largest published models of this kind are far below them.
Width = Annotated[int, Range(1, 65536)]
Layers = Annotated[int, Range(1, 256)]
Heads = Annotated[int, Range(1, 1024)]
Groups = Annotated[int, Range(1, 1024)]
Patch = Annotated[int, Range(1, 64)]
Multiplier = Annotated[int, Range(1, 64)]
Pixels = Annotated[int, Range(1, 8192)]
FrameCount = Annotated[int, Range(1, 4096)]
LEVELS = Items(1, 8)


# --- checks --------------------------------------------------------------------------------------------

def check_fields(values: Any) -> None:
    """Refuse a dataclass with a field of another type or out of its range.

    Raises:
        FieldError: names the first such field, what was expected and what was found.
    """
    cls: Any = type(values)
    for name, hint in _hints(cls).items():
        check_value(hint, getattr(values, name), name)


def read_fields(cls: type, values: Any) -> Any:
    """Build a dataclass from plain values, such as those of a JSON file; lists become tuples.

    Raises:
        UnknownField: a field that the dataclass does not have.
        FieldError: no object, a missing field, or whatever the dataclass refuses.
    """
    check_names(values, [field.name for field in fields(cls)])
    check_present(values, [field.name for field in fields(cls)
                           if field.default is MISSING and field.default_factory is MISSING])
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def read_section(cls: type, values: dict[str, Any], name: str) -> Any:
    """Take the field `name` out of plain values and build a dataclass from it.

    Raises:
        FieldError: the field is missing, or see `read_fields`.
    """
    check_present(values, [name])
    with inside(name):
        return read_fields(cls, values.pop(name))


def check_object(values: Any) -> None:
    """Refuse values that have no fields.

    Raises:
        FieldError: no object.
    """
    if not isinstance(values, Mapping):
        raise FieldError("", f"expected an object of fields, found {shown(values)}")


def check_names(values: Any, known: Collection[str]) -> None:
    """Refuse values that are no object, or have fields of other names.

    Raises:
        FieldError, UnknownField: says which names, and the nearest or all known ones.
    """
    check_object(values)
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected some of {listed(sorted(known), 60)}"
        raise UnknownField("", f"unknown fields {listed([shown(name) for name in unknown])}; {hint}")


def check_present(values: Mapping[str, Any], needed: Collection[str]) -> None:
    """Refuse an object that lacks a field.

    Raises:
        FieldError: names the first field that is missing.
    """
    for name in needed:
        if name not in values:
            raise FieldError(name, "expected this field, found none")


def check_complete(made: Any, values: Mapping[str, Any]) -> None:
    """Refuse an object that lacks a field of the dataclass built from it, at any depth, but for `OPTIONAL` ones.

    Raises:
        FieldError: names the field that is missing.
    """
    cls: Any = type(made)
    for name, hint in _hints(cls).items():
        if name not in values and OPTIONAL not in getattr(hint, "__metadata__", ()):
            raise FieldError(name, "expected this field, found none")
        inner = getattr(made, name)
        if is_dataclass(inner) and isinstance(values.get(name), Mapping):
            with inside(name):
                check_complete(inner, values[name])


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """Return name -> annotation of every field of a dataclass."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in fields(cls)}


def check_value(hint: Any, value: Any, path: str) -> None:
    """Refuse a value that does not fit an annotation.

    Args:
        hint: annotation of a field, with or without metadata.
        value: of the field.
        path: of the field, for the error.

    Raises:
        FieldError: says what was expected and what was found.
    """
    kind, rules = _parts(hint)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (Union, UnionType):
        _check_union(hint, arguments, value, path)
        return
    fits = _TYPES.get(origin or kind, lambda found: isinstance(found, kind))(value)
    if not fits or not all(rule.accepts(value) for rule in rules):
        raise FieldError(path, f"expected {_words(hint)}, found {shown(value)}")
    if origin is tuple:
        inner = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(inner) != len(value):
            raise FieldError(path, f"expected {_words(hint)}, found {shown(value)}")
        for number, (one, found) in enumerate(zip(inner, value, strict=True)):
            check_value(one, found, f"{path}[{number}]")
    elif arguments:
        for name, found in value.items():
            check_value(arguments[1], found, f"{path}.{shown(name, 40)[1:-1]}" if isinstance(name, str) else path)


def _check_union(hint: Any, arguments: tuple, value: Any, path: str) -> None:
    problems = []
    for one in arguments:
        try:
            return check_value(one, value, path)
        except FieldError as error:
            problems.append(error)
    # An entry of a list is named if the list itself is one of the choices.
    entry = next((error for error in problems if error.field != path), None)
    raise entry or FieldError(path, f"expected {_words(hint)}, found {shown(value)}")


def _parts(hint: Any) -> tuple[Any, list[Any]]:
    """Return the type of an annotation, and its rules."""
    if typing.get_origin(hint) is Annotated:
        kind, rules = _parts(hint.__origin__)
        return kind, [*rules, *(rule for rule in hint.__metadata__ if rule != OPTIONAL)]
    return hint, []


_TYPES = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool) and (
        isinstance(value, Integral) or math.isfinite(value)),
    str: lambda value: isinstance(value, str) and "\0" not in value,
    tuple: lambda value: isinstance(value, tuple),
    Mapping: lambda value: isinstance(value, Mapping),
}
_WORDS = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text", NoneType: "null",
          Mapping: "an object of fields"}


def _words(hint: Any) -> str:
    """Return an annotation in words: "an integer from 1 to 256"."""
    kind, rules = _parts(hint)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    rule = "".join(map(str, rules))
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in arguments)
    if origin is tuple:
        if arguments[-1] is ...:
            return f"a list{rule}, each {_words(arguments[0])}"
        return f"a list of {len(arguments)} entries, each {_words(arguments[0])}"
    if arguments:
        return f"an object whose values are each {_words(arguments[1])}"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind))) + rule
