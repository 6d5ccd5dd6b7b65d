"""Certificates for signing, made on the spot."""

from datetime import datetime, timedelta, timezone
from pathlib import Path


def write_certificate(folder: Path, days: int = 30, curve: str = "SECP256R1", content_signing: bool = True
                      ) -> tuple[Path, Path]:
    """Write chain.pem, a signer's certificate and the authority's, and key.pem; return both paths.

    Args:
        folder: created if missing.
        days: until the certificates expire; negative: they have expired.
        curve: of the signer's key.
        content_signing: the signer's certificate may sign content; False: it is for web servers.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(timezone.utc)  # noqa: UP017

    def certificate(subject: str, key, authority, by_authority: bool) -> bytes:
        name = lambda text: x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Orchard"),
                                       x509.NameAttribute(NameOID.COMMON_NAME, text)])
        builder = (
            x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("Authority"))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(not by_authority, None), critical=True)
            .add_extension(x509.KeyUsage(by_authority, False, False, False, False, not by_authority, not by_authority,
                                         False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False))
        if by_authority:
            use = ExtendedKeyUsageOID.EMAIL_PROTECTION if content_signing else ExtendedKeyUsageOID.SERVER_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(getattr(ec, curve)())
    chain, secret = folder / "chain.pem", folder / "key.pem"
    folder.mkdir(exist_ok=True)
    chain.write_bytes(certificate("Gardener", key, authority, True)
                      + certificate("Authority", authority, authority, False))
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                                         serialization.NoEncryption()))
    return chain, secret
