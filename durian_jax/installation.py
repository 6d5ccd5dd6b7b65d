"""How this copy of the package is installed: its versions, and the command that adds an extra."""

import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from durian_jax.errors import InputError
from durian_jax.versions import __version__

_ROOT = Path(__file__).resolve().parents[1]


def constraints() -> str:
    """Return the name of the checkout's file of tested versions for the running Python."""
    return "constraints.txt" if sys.version_info < (3, 12) else "constraints-newest.txt"


def install_command(extra: str = "") -> str:
    """Return the shell command that installs this package, with one of its extras.

    No package index has this package. So the command names what this copy came from: the checkout that it runs in, the
    address that pip has recorded (a wheel, a folder or a repository), or else the file name of the wheel.
    """
    extras = f"[{extra}]" if extra else ""
    tested = _ROOT / constraints()
    if (_ROOT / "setup.py").is_file() and tested.is_file():
        return f"pip install -e {shlex.quote(f'{_ROOT}{extras}')} -c {shlex.quote(str(tested))}"
    address = _recorded_address()
    if address:
        return f"pip install {shlex.quote(f'durian-jax{extras} @ {address}')}"
    return f"pip install {shlex.quote(f'durian_jax-{__version__}-py3-none-any.whl{extras}')}"


def check_versions(extras: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of Python, this package and the packages that it requires, by name.

    Args:
        extras: also of these extras.

    Raises:
        InputError: the package is not installed, or a required package is missing or has another version than required.
    """
    # Not at the top: `make` asks for `constraints` before any package is installed.
    from packaging.requirements import Requirement

    command = install_command(",".join(extras))
    try:
        installed = distribution("durian-jax")
    except PackageNotFoundError as error:
        raise InputError(f"durian-jax is not installed; run {command}") from error
    found = {"python": sys.version.split()[0], "durian-jax": __version__}
    wrong = []
    for requirement in map(Requirement, installed.requires or ()):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement}: not installed")
            continue
        if not requirement.specifier.contains(found[requirement.name], prereleases=True):
            wrong.append(f"{requirement}: found {found[requirement.name]}")
    if wrong:
        raise InputError("packages are missing or have other versions than this package requires "
                         f"({'; '.join(wrong)}); run {command}")
    return found


def _recorded_address() -> str | None:
    """Return the address that pip installed this package from (PEP 610), unless it is a path that no longer exists."""
    try:
        text = distribution("durian-jax").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    if text is None:
        return None
    record = json.loads(text)
    address = urlsplit(record["url"])
    if address.scheme == "file" and not Path(url2pathname(address.path)).exists():
        return None
    if "vcs_info" in record:
        return f"{record['vcs_info']['vcs']}+{record['url']}@{record['vcs_info']['commit_id']}"
    return record["url"]
