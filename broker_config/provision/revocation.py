"""The list of revoked certificates, as the broker reads it (a CRL, RFC 5280)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from fedmq.broker_config.provision.certificates import Authority

__all__ = ["is_ahead", "revocation_list"]

_STEP = timedelta(seconds=1)


def revocation_list(authority: Authority, serials: Iterable[int], now: datetime, before: bytes | None) -> bytes:
    """The list, PEM, of these serial numbers; `before` itself if it has them all and is this authority's.

    It holds until the authority ends. A list that ran out would shut everybody out, and this one is not fetched by
    anyone who could be given an old one: it lies beside the broker. Nobody is taken from it, whatever is remembered:
    the record may have been put back from a copy, and the clock may be wrong.

    Raises:
        ConfigError: a new list is needed, and the authority's key is not there.

    """
    wanted = set(serials)
    certificate = authority.parsed()
    old = _read(before)
    if old is not None and old.is_signature_valid(certificate.public_key()):  # type: ignore[arg-type]
        listed = {entry.serial_number for entry in old}
        same = wanted <= listed and old.next_update_utc == certificate.not_valid_after_utc
        if same and not is_ahead(before, now):
            assert before is not None
            return before
        wanted |= listed
    # OpenSSL takes the newest of the lists that it has read, by a date in whole seconds, and a broker that reads its
    # file anew still has the one before. So each is a second newer than that, from the authority's beginning on, and
    # no clock has a say in it: one that was ahead once would make a list that holds for nobody yet.
    updated = certificate.not_valid_before_utc
    if is_ahead(before, now):
        updated = now - timedelta(days=1)  # after whatever came before that one
    elif old is not None:
        updated = max(updated, old.last_update_utc + _STEP)
    builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject).last_update(updated)
    builder = builder.next_update(certificate.not_valid_after_utc)
    for serial in sorted(wanted):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(updated).build()
        builder = builder.add_revoked_certificate(entry)
    key = authority.key("the list of revoked certificates")
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    number = _number(old) + 1
    builder = builder.add_extension(issuer, critical=False).add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def is_ahead(pem: bytes | None, now: datetime) -> bool:
    """Whether a list is from the future, so that a broker lets nobody in with it; one was made with a clock ahead."""
    old = _read(pem)
    return old is not None and old.last_update_utc > now


def _read(pem: bytes | None) -> x509.CertificateRevocationList | None:
    """The list in a PEM text; None where there is none, or one that is damaged and has to be made anew."""
    try:
        return None if pem is None else x509.load_pem_x509_crl(pem)
    except ValueError:
        return None


def _number(old: x509.CertificateRevocationList | None) -> int:
    try:
        return 0 if old is None else old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0
