"""Training configs, packaged with the wheel: one file per model family, each with `PRESETS` and `get_config`."""

import ast
import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from durian_jax.errors import InputError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_FOLDER = Path(__file__).parent


def load_config(text: str) -> "ConfigDict":
    """Load a training config by its name.

    Args:
        text: one of
            "tiny,stage=1": a packaged preset and its options. If several families have a preset of this name, the
            first family in alphabetical order provides it.
            "FAMILY:tiny,stage=1": the preset of this family.
            "configs/FILE.py:tiny,stage=1": a Python file with a function `get_config`, which receives the text after
            the colon. A relative path is searched in the current folder, then in this package.

    Returns:
        The config, which is yours to change.

    Raises:
        InputError: an unknown preset, family or option, or a file that cannot be used.
    """
    name, colon, arguments = text.partition(":")
    if name.endswith(".py"):
        return _from_file(name, (arguments,) if colon else (), text)
    if not colon:
        arguments = text
    preset = arguments.partition(",")[0]
    families = [family for family, known in presets().items() if preset in known and (not colon or family == name)]
    if not families:
        raise InputError(_unknown(text))
    return _get_config(importlib.import_module(f"{__name__}.{families[0]}"), (arguments,), text)


def presets() -> dict[str, dict[str, str]]:
    """Return the packaged presets: family -> preset -> one line that describes it.

    The config files are parsed and not imported, because importing them takes seconds.
    """
    found = {path.stem: _parse_presets(path) for path in sorted(_FOLDER.glob("*.py"))}
    return {family: known for family, known in found.items() if known}


def _parse_presets(path: Path) -> dict[str, str]:
    """Read the keys of the literal `PRESETS = {"name": function}`, and the first docstring line of each function."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) \
                and ast.unparse(node.targets[0]) == "PRESETS":
            names = {ast.literal_eval(key): ast.unparse(value)
                     for key, value in zip(node.value.keys, node.value.values, strict=True) if key is not None}
            return {name: (ast.get_docstring(functions[value]) or "").partition("\n")[0] if value in functions else ""
                    for name, value in names.items()}
    return {}


def _unknown(text: str) -> str:
    known = presets()
    names = [name for family, found in known.items() for preset in found for name in (preset, f"{family}:{preset}")]
    listed = "; ".join(f"{family}: {', '.join(found)}" for family, found in known.items())
    near = difflib.get_close_matches(text.partition(",")[0], names, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "name one of them, or a file as FILE.py:PRESET"
    return f"config {text!r}: no such preset; the presets are {listed}; {hint}"


def _from_file(name: str, arguments: tuple[str, ...], text: str) -> "ConfigDict":
    path = Path(name)
    if not os.path.isfile(path):
        path = _FOLDER.parent / name
    if not os.path.isfile(path):
        raise InputError(f"config {text!r}: no such file, neither in this folder nor in the package; presets need no "
                         "file, as in --config=tiny,stage=1")
    path = path.resolve()
    if path.parent == _FOLDER.resolve():
        return _get_config(importlib.import_module(f"{__name__}.{path.stem}"), arguments, text)
    spec = importlib.util.spec_from_file_location(f"{__name__}._file_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # every .py file has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look their module up
    try:
        spec.loader.exec_module(module)
    except (InputError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise InputError(f"config {text!r}: {_reason(error, path)}") from error
    if not hasattr(module, "get_config"):
        raise InputError(f"config {text!r}: expected a function get_config in the file, found none")
    return _get_config(module, arguments, text)


def _get_config(module: ModuleType, arguments: tuple[str, ...], text: str) -> "ConfigDict":
    from ml_collections import ConfigDict

    try:
        config = module.get_config(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"config {text!r}: {_reason(error, Path(module.__file__ or ''))}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"config {text!r}: expected get_config to return an ml_collections.ConfigDict, found "
                         f"{type(config).__name__}")
    return config


def _reason(error: Exception, path: Path) -> str:
    """Return one line: the error's text; for other errors than a ValueError, its type and the line of the file, too."""
    message = " ".join(str(error).split())
    if type(error) is ValueError:
        return message
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{type(error).__name__}: {message}" + (f" (line {lines[-1]})" if lines else "")
