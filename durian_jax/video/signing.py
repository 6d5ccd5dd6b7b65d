"""C2PA manifests in MP4, by the optional package c2pa-python. Nothing here uses a network."""

import io
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np

from durian_jax.errors import InputError, cut
from durian_jax.files import reason_of, temporary
from durian_jax.installation import install_command

# IPTC's term for media that a trained model has generated (NewsCodes, digital source type).
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# No remote manifests, no revocation requests, and no host that a later setting of the library could ask.
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}, "core": {"allowed_network_hosts": []}}
# A file of certificates has some kilobytes.
_LARGEST_PEM = 1 << 20
# The box of a manifest: type "uuid" with this identifier (C2PA 2.1, annex A.5).
_MANIFEST_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


@dataclass(frozen=True)
class Signer:
    """A certificate of the user's and its key, see `load_signer`.

    Attributes:
        chain: certificates in PEM, the signer's first.
        key: private key in PEM.
        algorithm: of the signature, in C2PA's words, such as "es256".
    """

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    algorithm: str

    def sign(self, path: str | Path, manifest: dict[str, Any]) -> None:
        """Add a signed manifest to an MP4 file. The file is replaced after the manifest is complete.

        Args:
            path: of the file.
            manifest: definition of a manifest, as C2PA's tools read it.

        Raises:
            InputError: the certificate does not fit the key, has expired, or is not accepted for signing.
        """
        path = Path(path)
        with temporary(path.with_suffix(".signed")) as signed:
            with path.open("rb") as source, signed.open("x+b") as target:
                self._sign(source, target, manifest)
            os.replace(signed, path)

    def check(self) -> None:
        """Sign a tiny video in memory, so that a useless certificate is refused before any work.

        Raises:
            InputError: see `sign`.
        """
        video = io.BytesIO()
        with av.open(video, "w", format="mp4") as output:
            stream = output.add_stream("mpeg4", rate=1)
            stream.width = stream.height = 16
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
            output.mux(stream.encode())
        video.seek(0)
        made = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}  # a manifest without these is refused
        self._sign(video, io.BytesIO(), {"assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}]})

    def _sign(self, source: Any, target: Any, manifest: dict[str, Any]) -> None:
        import c2pa

        try:
            info = c2pa.C2paSignerInfo(self.algorithm.encode(), self.chain, self.key, None)  # None: no time stamp
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, _offline()) as builder:
                builder.sign(signer, "video/mp4", source, target)
        except c2pa.C2paError as error:
            raise InputError("the C2PA certificate and key cannot sign: "
                             f"{cut(str(error))}; expected a certificate chain, the signer's first, and its "
                             "private key") from error


def can_sign() -> bool:
    """Return whether the extra `provenance` is installed."""
    return find_spec("c2pa") is not None


def load_signer(certificate: str | Path | None, key: str | Path | None) -> Signer | None:
    """Load and try a certificate and its key; None if neither is given.

    Args:
        certificate: PEM file of the chain, the signer's certificate first.
        key: PEM file of the private key, without a passphrase.

    Raises:
        InputError: only one of the two is given, c2pa-python is missing, a file is unreadable, or the two do not fit or
            are not accepted for signing.
    """
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise InputError("C2PA: expected a certificate and a key, found only "
                         f"{'a certificate' if certificate else 'a key'}; give --c2pa-cert and --c2pa-key")
    if not can_sign():
        raise InputError(f"--c2pa-cert needs c2pa-python, which is not installed; run {install_command('provenance')}")
    chain = _read_pem(certificate, "CERTIFICATE")
    signer = Signer(chain, *_read_key(key))
    try:
        signer.check()
    except InputError as error:
        raise InputError(f"{certificate}, {key}: {error}") from error
    return signer


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Check the C2PA manifest of an MP4 file.

    Returns:
        `state`: "none", "unchecked" (c2pa-python is missing), "invalid", "valid" (signed by someone who is not on a
        trust list) or "trusted"; `signer` and `issuer`: names in the certificate; `source_types`: of the actions;
        `generator`: of the claim; `problems`: codes of what is wrong.
    """
    if not has_manifest(path):
        return _result("none")
    if not can_sign():
        return _result("unchecked")
    with Path(path).open("rb") as file:
        return _read(file)


def has_manifest(path: str | Path) -> bool:
    """Return whether an MP4 file has the box of a C2PA manifest among its outermost boxes, valid or not."""
    with Path(path).open("rb") as file:
        end, at = file.seek(0, os.SEEK_END), 0
        while at + 24 <= end:
            file.seek(at)
            head = file.read(32)
            size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
            if size == 1:  # a size of 64 bits follows
                size, start = int.from_bytes(head[8:16], "big"), 16
            if kind == b"uuid" and head[start:start + 16] == _MANIFEST_BOX:
                return True
            if size < start:  # 0: the last box; others are damage
                return False
            at += size
    return False


def _read(file: Any) -> dict[str, Any]:
    """`read_manifest` of an open file that has a manifest."""
    import c2pa

    try:
        with c2pa.Reader("video/mp4", file, context=_offline()) as reader:
            state, report = str(reader.get_validation_state() or "invalid").lower(), json.loads(reader.json())
    except c2pa.C2paError as error:
        return _result("invalid", problems=[cut(str(error))])
    active = report.get("manifests", {}).get(report.get("active_manifest"), {})
    signature = active.get("signature_info", {})
    actions = [action for assertion in active.get("assertions", ()) if assertion["label"].startswith("c2pa.actions")
               for action in assertion["data"].get("actions", ())]
    generator = [f"{info.get('name', '')} {info.get('version', '')}".strip()
                 for info in active.get("claim_generator_info", ())]
    problems = sorted({status["code"] for status in report.get("validation_status", ())})
    return _result(state, signature.get("common_name"), signature.get("issuer"), generator[0] if generator else None,
                   sorted({action["digitalSourceType"] for action in actions if "digitalSourceType" in action}),
                   problems)


def _result(state: str, signer: str | None = None, issuer: str | None = None, generator: str | None = None,
            source_types: list[str] | None = None, problems: list[str] | None = None) -> dict[str, Any]:
    return {"state": state, "signer": signer, "issuer": issuer, "generator": generator,
            "source_types": source_types or [], "problems": problems or []}


def _offline() -> Any:
    import c2pa

    return c2pa.Context(c2pa.Settings.from_dict(_OFFLINE))


def _read_pem(path: str | Path, kind: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST_PEM)
    except (OSError, ValueError) as error:
        raise InputError(f"{cut(str(path))}: cannot read the C2PA {kind.lower()}: {reason_of(error)}; give a PEM file"
                         ) from error
    if f"{kind}-----".encode() not in data:
        raise InputError(f"{cut(str(path))}: expected a PEM file with BEGIN {kind}, found none; use openssl")
    return data


def _read_key(path: str | Path) -> tuple[bytes, str]:
    """Return a private key in PKCS #8, and the algorithm that C2PA uses with it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    data = _read_pem(path, "PRIVATE KEY")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        why = "it has a passphrase" if isinstance(error, TypeError) else "it is damaged"
        raise InputError(f"{cut(str(path))}: expected a private key in PEM without a passphrase, but {why}; write one "
                         "with openssl pkey") from error
    algorithm = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        with suppress(KeyError):
            algorithm = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}[key.curve.name]
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    if algorithm is None:
        raise InputError(f"{cut(str(path))}: expected a key of P-256, P-384, P-521, RSA or Ed25519, which C2PA signs "
                         f"with, found {type(key).__name__}; choose another certificate")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()), algorithm
