"""Ed25519 keys in files, which are read again whenever they are others: so keys change without a restart."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.signing import AGGREGATOR, Keys
from fedmq.schemas.topics import check_id
from fedmq.signing_settings import SigningSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["aggregator_keys", "device_ids", "device_keys", "watch_keys"]

log = logging.getLogger("fedmq.keys")

T = TypeVar("T")

_PublicKeys = Mapping[str, "Ed25519PublicKey"]  # by their 64 hex digits

_UNKNOWN = "unknown"  # in place of the key of who is believed without one


def aggregator_keys(settings: SigningSettings) -> Keys | None:
    """The aggregator's; None if nothing is to be signed. Raises ConfigError for files that are missing or wrong."""
    if settings == SigningSettings():
        return None
    key, trusted, devices = settings.key_file, settings.aggregator_keys_file, settings.device_keys_file
    if key is None or trusted is None or devices is None:
        raise ConfigError(
            "[signing]: an aggregator needs key_file, aggregator_keys_file and device_keys_file, or none of them"
        )
    own, ours, theirs = _own(key), _ours(trusted), _theirs(devices)

    def trusted_of(name: str) -> _PublicKeys:
        return ours.read() if name == AGGREGATOR else theirs.read().get(name, {})

    return _keys(own, trusted_of)


def device_keys(settings: SigningSettings, client_id: str) -> Keys | None:
    """A device's; None if nothing is to be signed. Raises ConfigError for files that are missing or wrong."""
    if settings.key_file is None and settings.aggregator_keys_file is None:
        return None
    if settings.key_file is None or settings.aggregator_keys_file is None:
        whose = "" if settings.device_keys_file is None else "; with device_keys_file alone it is the operator's bundle"
        raise ConfigError(f"[signing]: a device needs key_file and aggregator_keys_file, or none of them{whose}")
    own, trusted = _own(settings.key_file), _ours(settings.aggregator_keys_file)

    def trusted_of(name: str) -> _PublicKeys:
        if name == AGGREGATOR:
            return trusted.read()
        return _by_name(own.read().public_key()) if name == client_id else {}

    return _keys(own, trusted_of)


def watch_keys(settings: SigningSettings) -> Keys | None:
    """Of who only looks: the aggregator's public keys, and the devices' where they are given; None without them."""
    if settings.aggregator_keys_file is None:
        return None
    trusted = _ours(settings.aggregator_keys_file)
    devices = _theirs(settings.device_keys_file) if settings.device_keys_file else None

    def trusted_of(name: str) -> _PublicKeys:
        if name == AGGREGATOR:
            return trusted.read()
        return devices.read().get(name, {}) if devices is not None else {}

    def sign(content: bytes) -> bytes:
        raise AssertionError("who only looks signs nothing")

    looking = Keys(sign, partial(_signer, trusted_of), trusted_of)
    if devices is not None:
        return looking

    def verify(name: str, content: bytes, signature: bytes) -> str | None:
        return looking.verify(name, content, signature) if name == AGGREGATOR else _UNKNOWN

    return Keys(sign, verify, lambda name: trusted_of(name) if name == AGGREGATOR else (_UNKNOWN,))


def device_ids(settings: SigningSettings) -> Callable[[], frozenset[str]] | None:
    """What says which devices have keys now; None if nothing is signed. Raises ConfigError as `aggregator_keys`."""
    if settings.device_keys_file is None:
        return None
    devices = _theirs(settings.device_keys_file)
    return lambda: frozenset(devices.read())


class _File(Generic[T]):
    """What a file holds now; what it held before, if it cannot be read any more. `setting` names it."""

    def __init__(self, setting: str, path: Path, parse: Callable[[bytes, str], T]) -> None:
        self._setting = setting
        self._path = path
        self._parse = parse
        self._seen = self._look()
        self._content = self._load()

    def read(self) -> T:
        try:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen  # also of a file that is wrong: it is complained of once
                self._content = self._load()
                log.info("keys read again file=%s", self._path)
        except ConfigError as error:
            if self._seen is not None:
                log.error("the keys from before are used: %s", error)
            self._seen = None
        return self._content

    def _look(self) -> tuple[int, int, int] | None:
        try:
            state = self._path.stat()
        except OSError as error:
            raise self._unread(error) from error
        return (state.st_ino, state.st_mtime_ns, state.st_size)

    def _load(self) -> T:
        try:
            return self._parse(self._path.read_bytes(), str(self._path))
        except OSError as error:
            raise self._unread(error) from error
        except ImportError as error:
            raise ConfigError(
                f"[signing]: the key in {self._path} needs the package cryptography, which is not installed: "
                f"{sys.executable} -m pip install 'fedmq[secure]'"
            ) from error

    def _unread(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"signing.{self._setting}: {self._path} cannot be read: {error.strerror}; it is a file of the bundle that"
            " `fedmq provision` makes: take it from there"
        )


def _own(path: Path) -> _File[Ed25519PrivateKey]:
    return _File("key_file", path, _private)


def _ours(path: Path) -> _File[_PublicKeys]:
    return _File("aggregator_keys_file", path, _of_aggregator)


def _theirs(path: Path) -> _File[Mapping[str, _PublicKeys]]:
    return _File("device_keys_file", path, _of_devices)


def _private(content: bytes, where: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: it holds no private key in PEM without a pass phrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{where}: its key is of another kind than Ed25519")
    return key


def _public(text: str, where: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError as error:
        raise ConfigError(f"{where}: found {text[:70]!r}, expected a public key of 64 hex digits") from error


def _by_name(*keys: Ed25519PublicKey) -> _PublicKeys:
    return {key.public_bytes_raw().hex(): key for key in keys}


def _of_aggregator(content: bytes, where: str) -> _PublicKeys:
    keys = _by_name(*map(partial(_public, where=where), _text(content, where).split()))
    if not keys:
        raise ConfigError(f"{where}: no key is in it")
    return keys


def _of_devices(content: bytes, where: str) -> Mapping[str, _PublicKeys]:
    found: dict[str, _PublicKeys] = {}
    for line in filter(None, map(str.strip, _text(content, where).splitlines())):
        client_id, _, key = line.partition(" ")
        known = found.get(check_id(client_id, where), {})
        found[client_id] = {**known, **_by_name(_public(key.strip(), where))}
    return found


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: it is no text of ids and hex digits") from error


def _keys(own: _File[Ed25519PrivateKey], trusted_of: Callable[[str], _PublicKeys]) -> Keys:
    return Keys(lambda content: own.read().sign(content), partial(_signer, trusted_of), trusted_of)


def _signer(trusted_of: Callable[[str], _PublicKeys], name: str, content: bytes, signature: bytes) -> str | None:
    from cryptography.exceptions import InvalidSignature

    for text, key in trusted_of(name).items():
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return text
    return None
