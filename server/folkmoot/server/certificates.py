"""The server's TLS: a certificate authority of its own and a certificate, made at the first start and kept.

Clients and nodes are given `ca.pem`; the authority's digest is what a node signs when it authenticates, so that nobody
in between can pass its proof on. The server's certificate is made anew before it ends, or when the server's names
change; the authority stays, so that nobody has to be told.
"""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from folkmoot.transport.secret_files import write_secret

AUTHORITY_LIFE = timedelta(days=3653)
CERTIFICATE_LIFE = timedelta(days=397)
RENEW_BEFORE_END = timedelta(days=60)
CLOCKS_DIFFER_BY_AT_MOST = timedelta(hours=1)
ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificates:
    """What a TLS server needs, in PEM, and what vouches for it."""

    authority: bytes
    chain: bytes
    key: bytes

    @property
    def authority_digest(self) -> bytes:
        """SHA-256 of the authority's certificate in DER: how nodes name this server when they authenticate."""
        return x509.load_pem_x509_certificate(self.authority).fingerprint(hashes.SHA256())


def server_names(host: str, more: str) -> tuple[str, ...]:
    """Return the names and addresses that the certificate is for."""
    given = (host, socket.gethostname(), *(name.strip() for name in more.split(",")))
    unspecified = {"", "0.0.0.0", "::"}  # noqa: S104 -- left out, not bound
    return tuple(sorted({*ALWAYS, *given} - unspecified))


def load_or_make(folder: Path, *, names: tuple[str, ...], now: datetime) -> Certificates:
    """Return the certificates in the folder; make those that are missing, end soon or lack a name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_path, authority_key_path = folder / "ca.pem", folder / "ca-key.pem"
    server_path, server_key_path = folder / "server.pem", folder / "server-key.pem"
    if not (authority_path.exists() and authority_key_path.exists()):
        _make_authority(authority_path, authority_key_path, now)
        server_path.unlink(missing_ok=True)
    if not (server_path.exists() and server_key_path.exists()) or _outdated(server_path.read_bytes(), names, now):
        _make_server(server_path, server_key_path, authority_path, authority_key_path, names, now)
    return Certificates(authority_path.read_bytes(), server_path.read_bytes(), server_key_path.read_bytes())


def _outdated(pem: bytes, names: tuple[str, ...], now: datetime) -> bool:
    certificate = x509.load_pem_x509_certificate(pem)
    covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return now + RENEW_BEFORE_END > certificate.not_valid_after_utc or set(covered) != set(_alternatives(names))


def _make_authority(path: Path, key_path: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Folkmoot server authority")])
    usage = {name: name in {"key_cert_sign", "crl_sign"} for name in _KEY_USAGES}
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_secret(key_path, _private_pem(key), replace=True)
    write_secret(path, certificate.public_bytes(serialization.Encoding.PEM), replace=True)
    path.chmod(0o644)


def _make_server(
    path: Path, key_path: Path, authority_path: Path, authority_key_path: Path, names: tuple[str, ...], now: datetime
) -> None:
    authority = x509.load_pem_x509_certificate(authority_path.read_bytes())
    authority_key = serialization.load_pem_private_key(authority_key_path.read_bytes(), password=None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{authority_key_path} is not the key that this server made.")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Folkmoot server")])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), now, CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    write_secret(key_path, _private_pem(key), replace=True)
    write_secret(path, certificate.public_bytes(serialization.Encoding.PEM), replace=True)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER_BY_AT_MOST)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _alternatives(names: Iterable[str]) -> list[x509.GeneralName]:
    return [_alternative(name) for name in names]


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
