"""Generated videos say that they are AI generated: plain metadata always, a C2PA manifest with a certificate."""

import json
import sys

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.versions import __version__
from durian_jax.video import Provenance, read_provenance, read_video, write_video
from durian_jax.video.signing import SOURCE_TYPE, has_manifest, load_signer
from tests.commands.runner import durian
from tests.helpers.certificates import write_certificate

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
FIELDS = {"digitalSourceType": SOURCE_TYPE, "software": "durian-jax", "version": __version__, "model": "tiny"}


def write(path, **options):
    write_video(path, FRAMES, 25, **options)
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    pytest.importorskip("c2pa", reason="needs the extra `provenance`")
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def signed(certificate, tmp_path):
    return write(tmp_path / "signed.mp4", provenance=Provenance("models/tiny", load_signer(*certificate)))


def test_metadata_says_ai_generated_and_changes_no_frame(tmp_path):
    plain, marked = write(tmp_path / "plain.mp4"), write(tmp_path / "marked.mp4", provenance=Provenance("a/b/tiny"))
    found = read_provenance(marked)
    assert found["ai_generated"] and found["metadata"] == FIELDS and found["c2pa"]["state"] == "none"
    assert not read_provenance(plain)["ai_generated"] and read_provenance(plain)["metadata"] is None
    np.testing.assert_array_equal(read_video(plain)[0], read_video(marked)[0])


def test_equal_arguments_give_equal_bytes(tmp_path):
    first, second = (write(tmp_path / f"{name}.mp4", provenance=Provenance("tiny")) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert "model tiny (not protected by a signature)\n  C2PA manifest: none" in durian("provenance", first).stdout


def test_a_model_with_an_odd_name_is_told(tmp_path):
    name = "a\nb\udcff \N{PEAR}"
    found = read_provenance(write(tmp_path / "a.mp4", provenance=Provenance(tmp_path / name)))
    assert found["metadata"]["model"] == "a?b? \N{PEAR}"


@pytest.mark.parametrize("comment", ["[1]", "{", '{"a": 1}', "holiday"])
def test_comments_of_others_are_no_provenance(tmp_path, monkeypatch, comment):
    monkeypatch.setattr(Provenance, "metadata", {"comment": comment})
    found = read_provenance(write(tmp_path / "a.mp4", provenance=Provenance("tiny")))
    assert found["metadata"] is None and not found["ai_generated"]


def test_a_signed_video_has_a_manifest_and_the_same_frames(signed, tmp_path):
    import c2pa

    with c2pa.Reader("video/mp4", signed.open("rb")) as reader:
        manifest = reader.get_active_manifest()
        assert reader.get_validation_state() == "Valid"
    assert manifest["title"] == "signed.mp4"
    (action,) = next(assertion["data"]["actions"] for assertion in manifest["assertions"]
                     if assertion["label"].startswith("c2pa.actions"))
    assert action["action"] == "c2pa.created" and action["digitalSourceType"] == SOURCE_TYPE
    assert action["softwareAgent"] == {"name": "durian-jax", "version": __version__}
    found = read_provenance(signed)
    assert found["metadata"] == FIELDS and found["c2pa"] == {
        "state": "valid", "signer": "Gardener", "issuer": "Orchard", "generator": f"durian-jax {__version__}",
        "source_types": [SOURCE_TYPE], "problems": ["signingCredential.untrusted"]}
    np.testing.assert_array_equal(read_video(signed)[0], read_video(write(tmp_path / "plain.mp4"))[0])
    assert {path.name for path in tmp_path.iterdir()} == {"signed.mp4", "plain.mp4"}


def test_a_changed_video_is_invalid(signed):
    result = durian("provenance", signed)
    assert result.exit_code == 0 and "valid, signed by Gardener (Orchard), who is on no trust list" in result.stdout
    assert "not protected" not in result.stdout
    data = bytearray(signed.read_bytes())
    data[data.rindex(b"mdat") + 900] ^= 255
    signed.write_bytes(data)
    result = durian("provenance", signed, "--json", signed.with_suffix(".json"))
    assert result.exit_code == 1 and "C2PA manifest: INVALID" in result.stdout
    (found,) = json.loads(signed.with_suffix(".json").read_text())["files"]
    assert found["c2pa"]["state"] == "invalid" and "assertion.bmffHash.mismatch" in found["c2pa"]["problems"]


def test_changed_metadata_of_a_signed_video_is_invalid(signed):
    signed.write_bytes(signed.read_bytes().replace(b'"model": "tiny"', b'"model": "huge"'))
    found = read_provenance(signed)
    assert found["metadata"]["model"] == "huge" and found["c2pa"]["state"] == "invalid"


def test_without_the_extra_a_manifest_is_seen_and_not_checked(signed, monkeypatch):
    monkeypatch.setattr("durian_jax.video.signing.can_sign", lambda: False)
    result = durian("provenance", signed)
    assert result.exit_code == 0 and "present, not checked; run pip install" in result.stdout


def test_a_certificate_without_the_extra_names_the_extra(monkeypatch):
    monkeypatch.setattr("durian_jax.video.signing.can_sign", lambda: False)
    with pytest.raises(InputError, match=r"c2pa-python, which is not installed; run pip install .*\[provenance\]"):
        load_signer("chain.pem", "key.pem")


@pytest.mark.parametrize("curve", ["SECP384R1", "SECP521R1"])
def test_other_curves_sign(certificate, tmp_path, curve):
    video = write(tmp_path / "a.mp4", provenance=Provenance("tiny", load_signer(*write_certificate(tmp_path,
                                                                                                  curve=curve))))
    assert read_provenance(video)["c2pa"]["state"] == "valid"


def test_useless_certificates_are_refused(certificate, tmp_path):
    chain, key = certificate
    other, expired, unusual, server = (write_certificate(tmp_path / name, **made) for name, made in (
        ("other", {}), ("expired", {"days": -1}), ("unusual", {"curve": "SECP256K1"}),
        ("server", {"content_signing": False})))
    (tmp_path / "text.pem").write_text("hello")
    for given, words in (((chain, None), "expected a certificate and a key, found only a certificate"),
                         ((None, key), "found only a key"),
                         ((chain, tmp_path / "none.pem"), "none.pem: cannot read the C2PA private key"),
                         ((tmp_path, key), "cannot read the C2PA certificate"),
                         ((tmp_path / "text.pem", key), "text.pem: expected a PEM file with BEGIN CERTIFICATE"),
                         ((chain, chain), "chain.pem: expected a PEM file with BEGIN PRIVATE KEY"),
                         ((chain, other[1]), "the C2PA certificate and key cannot sign"),
                         (expired, "not valid at time of signing"), (unusual, "expected a key of P-256"),
                         (server, "cannot sign: Signature: the certificate is invalid")):
        with pytest.raises(InputError, match=words):
            load_signer(*given)
    assert load_signer(None, None) is None and load_signer("", "") is None


def test_a_key_with_a_passphrase_is_refused(certificate, tmp_path):
    from cryptography.hazmat.primitives import serialization

    chain, key = certificate
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))
    with pytest.raises(InputError, match="without a passphrase, but it has a passphrase"):
        load_signer(chain, tmp_path / "key.pem")


def test_a_failed_signature_leaves_the_earlier_video(certificate, tmp_path, monkeypatch):
    signer, path = load_signer(*certificate), tmp_path / "a.mp4"
    path.write_bytes(b"earlier")
    object.__setattr__(signer, "key", b"damaged")
    with pytest.raises(InputError, match="cannot sign"):
        write(path, provenance=Provenance("tiny", signer))
    assert path.read_bytes() == b"earlier" and [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_damaged_boxes_end_the_search(tmp_path):
    path = tmp_path / "a.mp4"
    for size in (0, 1, 7, 40):
        path.write_bytes(size.to_bytes(4, "big") + b"free" + bytes(40))
        assert not has_manifest(path)


def test_files_that_are_no_videos_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 20)
    for name in ("a.mp4", "none.mp4"):
        result = durian("provenance", tmp_path / name)
        assert result.exit_code == 2 and name in result.stderr and result.stderr.count("\n") == 1


def test_reading_needs_no_c2pa(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert "C2PA manifest: none" in durian("provenance", write(tmp_path / "a.mp4")).stdout
