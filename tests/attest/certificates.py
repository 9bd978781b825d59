"""An authority of a test's own, and what it certifies: for this machine, for another host, or until yesterday."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

THIS = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("elsewhere.example.org")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certified:
    """Files in PEM: a server's certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """certificate: its own, in PEM, which clients are given."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(self._key.public_key(), self._name, 9 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def certify(self, host: x509.GeneralName = THIS, *, left: timedelta = DAY) -> Certified:
        """A certificate for `host` that is good for so long."""
        key, name = ec.generate_private_key(ec.SECP256R1()), f"server-{len(list(self._folder.iterdir()))}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(key.public_key(), subject, left).add_extension(
            x509.SubjectAlternativeName([host]), critical=False
        )
        files = Certified(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def _builder(self, key: ec.EllipticCurvePublicKey, subject: x509.Name, left: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder(self._name, subject, key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 5 * DAY)
            .not_valid_after(now + left)
        )
