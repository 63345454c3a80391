"""Certificates and the revocation list; OpenSSL says whether they are good."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedmq.broker_config.provision.certificates import (
    Authority,
    authority_certificate,
    key_pem,
    new_key,
    read_identity,
)
from fedmq.broker_config.provision.revocation import revocation_list
from fedmq.schemas.errors import ConfigError

NOW = datetime.now(UTC).replace(microsecond=0)
HOSTS = ("broker.example", "10.0.0.7", "fe80::1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    key_file = tmp_path_factory.mktemp("authority") / "key.pem"
    key_file.write_bytes(key_pem(new_key()))
    return Authority(authority_certificate("f", key_file.read_bytes(), 1000, NOW, key_file), key_file)


@dataclass
class Judged:
    """What a TLS handshake in memory said of the two certificates."""

    server: str | None = None
    client: str | None = None


def shake_hands(
    authority: Authority, server: bytes, client: bytes, folder: Path, host: str, crl: bytes | None = None
) -> Judged:
    """A handshake where both sides look as strictly as they can."""
    for name, content in (("server.pem", server), ("client.pem", client), ("crl.pem", crl or b"")):
        (folder / name).write_bytes(content)
    at_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    at_server.verify_mode = ssl.CERT_REQUIRED
    at_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # With 1.3 a client learns of the server's refusal only later.
    at_client.maximum_version = ssl.TLSVersion.TLSv1_2
    for context, own in ((at_server, "server.pem"), (at_client, "client.pem")):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=authority.certificate.decode())
        context.load_cert_chain(folder / own)
    if crl is not None:
        at_server.load_verify_locations(folder / "crl.pem")
        at_server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        "client": at_client.wrap_bio(down, up, server_hostname=host),
        "server": at_server.wrap_bio(up, down, server_side=True),
    }
    judged = Judged()
    for _ in range(6):
        for side, tls in sides.items():
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                # The client judges the server's certificate, and the other way round.
                if side == "client":
                    judged.server = judged.server or str(error)
                else:
                    judged.client = judged.client or str(error)
                return judged
    return judged


@pytest.mark.parametrize("host", HOSTS)
def test_openssl_accepts_both_sides_at_its_strictest(authority: Authority, tmp_path: Path, host: str) -> None:
    server, client = authority.issue(HOSTS[0], 10, NOW, HOSTS), authority.issue("f.dev-1", 10, NOW)
    assert shake_hands(authority, server, client, tmp_path, host) == Judged()


def test_a_certificate_is_for_its_hosts_and_its_side_only(authority: Authority, tmp_path: Path) -> None:
    server, client = authority.issue(HOSTS[0], 10, NOW, HOSTS), authority.issue("f.dev-1", 10, NOW)
    judged = shake_hands(authority, server, client, tmp_path, "other.example")
    assert "Hostname mismatch" in str(judged.server)
    # A device that plays the broker, and a broker's certificate that logs in.
    judged = shake_hands(authority, client, client, tmp_path, "f.dev-1")
    assert "purpose" in str(judged.server)
    judged = shake_hands(authority, server, server, tmp_path, HOSTS[0])
    assert "purpose" in str(judged.client)


def test_a_certificate_that_has_ended_is_refused(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue(HOSTS[0], 10, NOW, HOSTS)
    ended = authority.issue("f.dev-1", 1, NOW - timedelta(hours=25))
    assert "expired" in str(shake_hands(authority, server, ended, tmp_path, HOSTS[0]).client)


def test_what_a_certificate_says(authority: Authority) -> None:
    pem = authority.issue("f.dev-1", 10, NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "f.dev-1"
    identity = read_identity(pem, Path())
    assert (identity.since, identity.until) == (NOW - timedelta(days=365), NOW + timedelta(days=10))
    assert identity.hosts == frozenset()
    assert read_identity(authority.issue(HOSTS[0], 10, NOW, HOSTS), Path()).hosts == set(HOSTS)
    others = {read_identity(authority.issue("f.dev-1", 10, NOW), Path()).serial for _ in range(3)}
    assert len(others | {identity.serial}) == 4


def test_no_certificate_outlives_its_authority(authority: Authority) -> None:
    end = read_identity(authority.certificate, Path()).until
    assert read_identity(authority.issue("f.dev-1", 5000, NOW), Path()).until == end
    with pytest.raises(ConfigError, match="the authority ended on"):
        authority.issue("f.dev-1", 10, NOW + timedelta(days=1001))


def test_an_authority_that_is_renewed_vouches_for_what_the_old_one_signed(authority: Authority, tmp_path: Path) -> None:
    server, client = authority.issue(HOSTS[0], 10, NOW, HOSTS), authority.issue("f.dev-1", 10, NOW)
    key = authority.key_file
    renewed = Authority(authority_certificate("f", key.read_bytes(), 2000, NOW, key), key)
    assert renewed.certificate != authority.certificate
    assert shake_hands(renewed, server, client, tmp_path, HOSTS[0]) == Judged()
    newer = renewed.issue("f.dev-1", 10, NOW)
    assert shake_hands(authority, server, newer, tmp_path, HOSTS[0]) == Judged()


def test_who_is_in_the_list_is_refused_and_nobody_else(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue(HOSTS[0], 10, NOW, HOSTS)
    clients = [authority.issue(name, 10, NOW) for name in ("f.dev-1", "f.dev-2")]
    serials = [read_identity(client, Path()).serial for client in clients]
    none = revocation_list(authority, [], NOW, None)
    one = revocation_list(authority, serials[:1], NOW, none)
    both = revocation_list(authority, serials, NOW, one)

    def refused(crl: bytes) -> list[bool]:
        judged = [shake_hands(authority, server, client, tmp_path, HOSTS[0], crl).client for client in clients]
        assert all(said is None or "certificate revoked" in said for said in judged)
        return [said is not None for said in judged]

    assert [refused(crl) for crl in (none, one, both)] == [[False, False], [True, False], [True, True]]
    # A broker that has read its file again knows all of them, and takes the newest, whatever their order.
    assert refused(both + one + none) == refused(none + one + both) == [True, True]


def test_a_list_is_signed_again_only_when_somebody_is_missing(authority: Authority) -> None:
    one = revocation_list(authority, [7], NOW, None)
    assert revocation_list(authority, [7], NOW + timedelta(days=900), one) == one
    assert revocation_list(authority, [], NOW, one) == one  # one that has ended meanwhile does no harm
    assert revocation_list(authority, [7, 8], NOW, one) != one
    both = x509.load_pem_x509_crl(revocation_list(authority, [8], NOW, one))
    assert {entry.serial_number for entry in both} == {7, 8}  # whatever is forgotten elsewhere, nobody is let in again
    damaged = one.replace(b"M", b"N", 1)
    assert revocation_list(authority, [7], NOW, damaged) != damaged


def test_a_list_never_ends_before_its_authority_and_is_never_from_the_future(authority: Authority) -> None:
    crl = None
    for number in range(50):
        crl = revocation_list(authority, range(1, number), NOW, crl)
    assert crl is not None
    parsed = x509.load_pem_x509_crl(crl)
    assert parsed.last_update_utc < datetime.now(UTC)
    assert parsed.next_update_utc == read_identity(authority.certificate, Path()).until


def test_the_openssl_program_can_read_them(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "dev.pem").write_bytes(authority.issue("f.dev-1", 10, NOW))
    try:
        said = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "dev.pem"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    assert said.stdout == "dev.pem: OK\n", said.stderr


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dev\.pem: it holds no certificate"):
        read_identity(b"nonsense", tmp_path / "dev.pem")
    with pytest.raises(ConfigError, match=r"key\.pem: it holds no private key"):
        authority_certificate("f", b"nonsense", 10, NOW, tmp_path / "key.pem")
