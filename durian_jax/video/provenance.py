"""Provenance of generated videos: plain metadata that says "AI generated", and a signed C2PA manifest if asked for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durian_jax.errors import InputError, cut
from durian_jax.files import parse_json, reason_of
from durian_jax.installation import install_command
from durian_jax.versions import __version__
from durian_jax.video.given import existing_file, open_media
from durian_jax.video.signing import SOURCE_TYPE, Signer, read_manifest

SOFTWARE = "durian-jax"
# Longest comment that is read, in characters; ours have about 200.
_LONGEST = 4096


@dataclass(frozen=True)
class Provenance:
    """What a generated video says of its origin. It has no dates and no paths: equal videos stay equal.

    Attributes:
        model: name of the checkpoint; only the last part of a path is told.
        signer: signs a C2PA manifest; None: only plain metadata.
    """

    model: str | Path
    signer: Signer | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """Tags of the MP4 file: `description` for people, `comment` in JSON for programs."""
        return {"description": f"AI-generated video, made with {SOFTWARE} {__version__}, model {self._name}",
                "comment": json.dumps(self._fields)}

    @property
    def report(self) -> dict[str, Any]:
        """What was written, for a report."""
        signed = "signed" if self.signer is not None else "none: no certificate was given (--c2pa-cert, --c2pa-key)"
        return {**self._fields, "c2pa": signed}

    def sign(self, path: str | Path, title: str) -> None:
        """Add the C2PA manifest to a finished file, if there is a signer.

        Args:
            path: of the file.
            title: the name that the file will get.

        Raises:
            InputError: the certificate cannot sign.
        """
        if self.signer is not None:
            made = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE,
                    "softwareAgent": {"name": SOFTWARE, "version": __version__},
                    "description": f"model {self._name}"}
            self.signer.sign(path, {
                "title": _plain(title), "claim_generator_info": [{"name": SOFTWARE, "version": __version__}],
                "assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}]})

    @property
    def _fields(self) -> dict[str, str]:
        return {"digitalSourceType": SOURCE_TYPE, "software": SOFTWARE, "version": __version__, "model": self._name}

    @property
    def _name(self) -> str:
        return cut(_plain(Path(self.model).name or Path(self.model).resolve().name))


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read what a video says of its origin.

    Returns:
        `file`; `ai_generated`: whether the metadata or the manifest says so; `metadata`: the fields that `Provenance`
        writes, or None; `c2pa`: see `signing.read_manifest`.

    Raises:
        InputError: the file is no readable video.
    """
    file = existing_file(path, "a video")
    try:
        with open_media(file) as container:
            comment = container.metadata.get("comment", "")
        manifest = read_manifest(file)
    except (OSError, ValueError) as error:  # PyAV's errors are one or the other
        raise InputError(f"{cut(str(path))}: not a readable video: {reason_of(error)}; copy it again from its source"
                         ) from error
    fields = _parse(comment)
    return {"file": str(path), "ai_generated": SOURCE_TYPE in [*manifest["source_types"],
                                                               *(fields or {}).values()],
            "metadata": fields, "c2pa": manifest}


def describe(found: dict[str, Any]) -> str:
    """Return the result of `read_provenance` as lines of text."""
    fields, c2pa = found["metadata"], found["c2pa"]
    plain = "none" if fields is None else (
        f"made with {fields.get('software', '?')} {fields.get('version', '?')}, model {fields.get('model', '?')}"
        f"{'' if c2pa['state'] in ('valid', 'trusted') else ' (not protected by a signature)'}")
    by = f"signed by {c2pa['signer'] or 'unknown'} ({c2pa['issuer'] or 'unknown'})"
    manifest = {
        "none": "none",
        "unchecked": f"present, not checked; run {install_command('provenance')}",
        "invalid": f"INVALID: the file was changed after signing, or the manifest or certificate cannot be accepted "
                   f"({', '.join(c2pa['problems'])})",
        "valid": f"valid, {by}, who is on no trust list",
        "trusted": f"valid, {by}, trusted"}[c2pa["state"]]
    says = "says that it is AI generated" if found["ai_generated"] else "says nothing of AI"
    return f"{found['file']}: {says}\n  metadata: {plain}\n  C2PA manifest: {manifest}"


def _parse(comment: str) -> dict[str, str] | None:
    """The fields of a comment of `Provenance.metadata`; None for other comments."""
    try:
        fields = parse_json(comment) if len(comment) <= _LONGEST else {}
    except ValueError:
        return None
    if "digitalSourceType" not in fields:
        return None
    return {name: _plain(cut(str(value))) for name, value in fields.items()}


def _plain(text: str) -> str:
    """Text without control characters and without bytes that are no UTF-8."""
    return "".join(sign if sign.isprintable() else "?" for sign in text.encode("utf-8", "replace").decode())
