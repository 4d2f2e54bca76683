"""An authority for tests: roots with a Subject and a key identifier of their own, and leaves as links have them.

Clients have a SPIFFE identity and no DNS name, servers DNS names and no identity. Keys are ECDSA P-256. It stands on
`cryptography`, which comes with the extra `[test]`; no client and no server has need of it.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What an authority writes into notBefore: clocks differ.
BACK_DATED = dt.timedelta(minutes=5)
_PEM = serialization.Encoding.PEM
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """PEM texts: a certificate with the chain to its root, and its key."""

    certificate: str
    private_key: str = field(repr=False)

    @property
    def serial(self) -> str:
        """The certificate's serial number, in hexadecimal digits."""
        return f"{x509.load_pem_x509_certificate(self.certificate.encode()).serial_number:x}"

    @property
    def not_before(self) -> dt.datetime:
        """From when on it is valid."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).not_valid_before_utc


class Authority:
    """A root, or with `parent` an authority below one."""

    def __init__(self, name: str, parent: "Authority | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._sign(parent or self)
        self.chain: str = "" if parent is None else own + parent.chain
        self.trust: str = own if parent is None else parent.trust

    def _sign(self, signer: "Authority") -> str:
        builder = _dated(x509.CertificateBuilder(), dt.datetime.now(dt.UTC), dt.timedelta(days=1))
        builder = builder.subject_name(self.name).issuer_name(signer.name).public_key(self.key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        return _finish(builder, signer)

    def client(self, *identities: str, issued: dt.datetime | None = None, lasts: float = 3600.0) -> Leaf:
        """Issue to a client: `identities` are URIs, `lasts` is in seconds from `issued` (None: now) on."""
        names = [x509.UniformResourceIdentifier(one) for one in identities]
        return self._issue(names, ExtendedKeyUsageOID.CLIENT_AUTH, issued, lasts)

    def server(self, *names: str, issued: dt.datetime | None = None, lasts: float = 3600.0) -> Leaf:
        """Issue to a server: `names` are DNS names or IP addresses."""
        return self._issue([_address(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, issued, lasts)

    def _issue(
        self, names: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier, issued: dt.datetime | None, lasts: float
    ) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _dated(x509.CertificateBuilder(), issued or dt.datetime.now(dt.UTC), dt.timedelta(seconds=lasts))
        builder = builder.subject_name(x509.Name([])).issuer_name(self.name).public_key(key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if names:
            # An empty Subject makes it critical (RFC 5280, section 4.2.1.6).
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        text = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        return Leaf(_finish(builder, self) + self.chain, text)


def _finish(builder: x509.CertificateBuilder, signer: Authority) -> str:
    known = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    signed = builder.add_extension(known, critical=False).sign(signer.key, hashes.SHA256())
    return signed.public_bytes(_PEM).decode()


def _address(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _dated(builder: x509.CertificateBuilder, issued: dt.datetime, lasts: dt.timedelta) -> x509.CertificateBuilder:
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(issued - BACK_DATED).not_valid_after(issued + lasts)
