"""The private authority and the certificates that it issues: ECDSA on P-256, X.509 version 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmq.broker_config.provision.host_names import address_of
from fedmq.broker_config.provision.private_files import read_private
from fedmq.schemas.errors import ConfigError

__all__ = ["Authority", "Identity", "authority_certificate", "key_pem", "new_key", "read_identity"]

# Devices' clocks may be behind: those without a battery start at the time when they were last switched off, and to them
# a certificate of yesterday, the broker's too, is one of the future. Not more than a year, because some platforms
# refuse a broker's certificate of more than 825 days, and with its 397 days this has 762.
_BACKDATED = timedelta(days=365)
_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """What a certificate says.

    Attributes:
        serial: its number.
        since: the beginning of its lifetime.
        until: its end.
        hosts: the names and addresses that it is for; none for a client.

    """

    serial: int
    since: datetime
    until: datetime
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority: its certificate, and its key, which is read only when something has to be signed.

    Attributes:
        certificate: PEM.
        key_file: where the private key is.

    """

    certificate: bytes
    key_file: Path

    def parsed(self) -> x509.Certificate:
        """The certificate; raises ConfigError if it is none."""
        return _parsed(self.certificate, self.key_file.with_name("ca.pem"))

    def key(self, purpose: str) -> ec.EllipticCurvePrivateKey:
        """The private key, to sign something; raises ConfigError if it is not there or not the certificate's."""
        content = read_private(self.key_file)
        if content is None:
            raise ConfigError(
                f"{self.key_file}: the authority's private key is not there, and {purpose} has to be signed with it;"
                " put it back from where you keep it"
            )
        key = _parsed_key(content, self.key_file)
        if key.public_key() != self.parsed().public_key():
            raise ConfigError(f"{self.key_file}: it is another authority's key; put back the one of this folder")
        return key

    def issue(self, name: str, days: int, now: datetime, hosts: Sequence[str] = ()) -> bytes:
        """A new private key and a certificate for it, in one PEM text.

        Args:
            name: the common name: of a client, what it logs in as.
            days: its lifetime; it ends with the authority's at the latest.
            now: the time.
            hosts: names and addresses of a broker; none for a client. A client's certificate is no broker's.

        Raises:
            ConfigError: the authority's key is not there, or it has ended.

        """
        purpose = "the broker's certificate" if hosts else f"the certificate of {name}"
        key, signer, issuer = new_key(), self.key(purpose), self.parsed()
        until = min(now + timedelta(days=days), issuer.not_valid_after_utc)
        if until <= now:
            raise ConfigError(f"{purpose}: the authority ended on {until:%Y-%m-%d}; --renew renews it too")
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(name, key, issuer.subject, now, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if hosts:
            names = [_general_name(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return key_pem(key) + builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PEM, without a pass phrase: it is used by machines that nobody sits at."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def authority_certificate(federation: str, key: bytes, days: int, now: datetime, where: Path) -> bytes:
    """The certificate, PEM, of an authority with this key; the same key and name make one that follows another."""
    private = _parsed_key(key, where)
    name = _name(_authority_name(federation))
    builder = (
        _builder(_authority_name(federation), private, name, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_identity(pem: bytes, where: Path) -> Identity:
    """What the first certificate in a PEM text says; raises ConfigError if there is none."""
    certificate = _parsed(pem, where)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        hosts: frozenset[str] = frozenset()
    else:
        addresses = map(str, names.get_values_for_type(x509.IPAddress))
        hosts = frozenset([*names.get_values_for_type(x509.DNSName), *addresses])
    return Identity(certificate.serial_number, certificate.not_valid_before_utc, certificate.not_valid_after_utc, hosts)


def _parsed_key(pem: bytes, where: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM text; raises ConfigError if there is none."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: it holds no private key in PEM without a pass phrase; put it back") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{where}: its key is of another kind than ECDSA; put back the one that was made here")
    return key


def _parsed(pem: bytes, where: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ConfigError(f"{where}: it holds no certificate in PEM; put it back from a copy") from error


def _authority_name(federation: str) -> str:
    # A common name has 64 characters at most, and so may a federation's.
    return f"{federation[:54]} authority"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    address = address_of(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATED)
        .not_valid_after(until.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USES})
