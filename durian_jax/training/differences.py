"""Fields in which two configs differ, for error messages."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

# Number of fields that a message lists.
_LISTED = 5


def differences(before: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """Return (dotted name, value before, value now) of every field in which two configs differ.

    Args:
        before, now: dataclasses or mappings, nested in any way.
    """
    found, wanted = _flat(before), _flat(now)
    return [(name, found.get(name), wanted.get(name)) for name in sorted({**found, **wanted})
            if found.get(name) != wanted.get(name)]


def describe(different: list[tuple[str, Any, Any]], words: str) -> str:
    """Return one line about the first fields, and how many more there are.

    Args:
        different: from `differences`.
        words: how to say it, with {name}, {before} and {now}.
    """
    first = [words.format(name=name, before=before, now=now).strip() for name, before, now in different[:_LISTED]]
    more = [f"and {len(different) - _LISTED} more"] if len(different) > _LISTED else []
    return "; ".join(first + more)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if not isinstance(value, Mapping):
        return {name: value}
    return {inner: found for key, item in value.items()
            for inner, found in _flat(item, f"{name}.{key}" if name else str(key)).items()}
