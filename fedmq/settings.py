"""`federation.toml`: read, overridden by environment and options, validated; every mistake is one line."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmq.aggregator.config import AggregatorSettings
from fedmq.broker_config.provision.folder import OPERATOR
from fedmq.broker_config.settings import BrokerSettings
from fedmq.edge_client.config import DeviceSettings
from fedmq.schemas.codecs import CODECS
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import AGGREGATOR
from fedmq.schemas.topics import ID_PATTERN, check_id
from fedmq.signing_settings import SigningSettings

__all__ = ["Settings", "load_settings"]

_PREFIX = "FEDMQ_"
_PATHS = (
    ("task",),
    ("aggregator", "folder"),
    ("aggregator", "init"),
    ("aggregator", "revoked_file"),
    ("device", "folder"),
    ("broker", "password_file"),
    ("broker", "ca_file"),
    ("broker", "cert_file"),
    ("broker", "key_file"),
    ("signing", "key_file"),
    ("signing", "aggregator_keys_file"),
    ("signing", "device_keys_file"),
)
_SECTIONS = ("broker", "plan", "aggregator", "aggregator.goal", "device", "signing")
_OTHER_WORDS = {"client": "device", "clients": "device", "edge_client": "device", "server": "aggregator"}
_TEXTS = (("broker", "username"), ("broker", "password"))  # whatever they look like: a password may be all digits


class Settings(BaseModel):
    """One federation, as its file describes it. Aggregator and devices may read the same file.

    Attributes:
        federation: its name, which is also its topic prefix.
        task: the task file.
        broker: where the broker is.
        plan: how to train; only the aggregator's counts, and travels with the model.
        aggregator: how updates become versions.
        device: what a device decides for itself.
        signing: the keys that messages are signed and verified with; nothing is signed without.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    federation: Annotated[str, Field(pattern=ID_PATTERN)]
    task: Path | None = None
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    plan: Plan = Field(default_factory=Plan)
    aggregator: AggregatorSettings = Field(default_factory=AggregatorSettings)
    device: DeviceSettings = Field(default_factory=DeviceSettings)
    signing: SigningSettings = Field(default_factory=SigningSettings)

    @property
    def run_folder(self) -> Path:
        """Where the aggregator keeps its run."""
        return self.aggregator.folder or Path("runs") / self.federation

    @property
    def account(self) -> str | None:
        """Whose login at the broker this is, where `fedmq provision` has made it; None for any other.

        A device's id, `aggregator` or `operator`. The broker allows such a login one connection at a time.
        """
        federation, _, account = (self.broker.username or "").partition(".")
        return account if account and federation == self.federation else None

    def check_aggregator(self) -> None:
        """Raise ConfigError if the login is the operator's or a device's: whose it is would be cut off."""
        if self.account is None or self.account not in (OPERATOR, self.device.client_id):
            return  # also a login that was not provisioned, whatever its name
        whose = "the operator" if self.account == OPERATOR else f"device {self.account!r}"
        raise ConfigError(
            f"broker.username {self.broker.username!r} is the login of {whose}, which an aggregator that used it would"
            f" cut off: take the aggregator's own bundle, as in secure/{AGGREGATOR}/federation.toml"
        )

    def device_id(self, given: str | None) -> str:
        """Which device this is: the one that the file names, or else the one that is given.

        Raises:
            ConfigError: neither names one, they name two, or it is no id of a device; or the login is the aggregator's
                or the operator's.

        """
        if self.account == AGGREGATOR:
            raise ConfigError(
                f"broker.username {self.broker.username!r} is the aggregator's login, and a device that used it would "
                "cut the aggregator off: take the device's own bundle, as in secure/devices/dev-7"
            )
        if self.account == OPERATOR:
            raise ConfigError(
                f"broker.username {self.broker.username!r} is the operator's login: this is the operator's bundle, for "
                "`fedmq status`; take the device's own, as in secure/devices/dev-7"
            )
        named = self.device.client_id
        if given is None and named is None:
            raise ConfigError("which device is this? give --client-id ID, or set device.client_id in its file")
        if named is not None and given not in (None, named):
            raise ConfigError(
                f"client id {given!r} is given, and the login and keys of these settings are for {named!r} "
                "(device.client_id): leave out the id, or take the bundle of the other device"
            )
        client_id = check_id(named or given or "", "client id")
        if client_id == AGGREGATOR:
            raise ConfigError("client id 'aggregator' is the aggregator's; choose another")
        return client_id

    def device_folder(self, client_id: str) -> Path:
        """Where one client keeps its outbox."""
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return (self.device.folder or state / "fedmq" / self.federation) / client_id


def load_settings(
    path: str | Path | None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of a file, then of the environment (`FEDMQ_PLAN__LEARNING_RATE=0.1`), then of options.

    Args:
        path: the TOML file; relative paths in it, and the run's folder, count from its folder. None starts from
            nothing, with the run's folder in the present one.
        overrides: `plan.learning_rate=0.1`, as after `--set`; what is not a TOML value is a text. Relative paths count
            from the present folder.
        environment: `os.environ` if None.
        options: of the command line, that give one of `overrides` a name of its own: `{"broker.url": "--broker"}`.

    Raises:
        ConfigError: one line for each mistake: where, what was found, what was expected.

    """
    data: dict[str, Any] = {}
    origins: dict[tuple[str, ...], str] = {}
    if path is not None:
        data = _read(Path(path))
    for source, key, text in _overrides(overrides, os.environ if environment is None else environment):
        value = _value(key, text)
        if source.startswith("--"):
            _check_no_secret(key, value, source)
        _put(data, key, value, source)
        origins[key] = (options or {}).get(".".join(key), source)
    try:
        # Strict, and as JSON, because that is TOML's set of types: "0.1" is a text and no number, a path is a text.
        settings = Settings.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        lines = [_sentence(problem, origins, str(path or "")) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from error
    if path is None or settings.aggregator.folder is not None:
        return settings
    folder = Path(path).resolve().parent / settings.run_folder
    return settings.model_copy(update={"aggregator": settings.aggregator.model_copy(update={"folder": folder})})


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; write one, or name another with --config") from error
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: it is not TOML: {error}") from error
    for *sections, name in _PATHS:
        place: Any = data
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(name), str):
            place[name] = str(path.resolve().parent / Path(place[name]).expanduser())
    return data


def _overrides(options: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    for name, text in sorted(environment.items()):
        if name.startswith(_PREFIX):
            key = tuple(name.removeprefix(_PREFIX).lower().split("__"))
            # Other names are no settings, but a section is one, however it is mistyped.
            if len(key) > 1 or key[0] in Settings.model_fields:
                yield name, key, _checked(text, name)
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            shown = "--set" if "password" in option or "@" in option else f"--set {option}"
            raise ConfigError(f"{shown}: expected KEY=VALUE, such as plan.learning_rate=0.1")
        yield f"--set {name}", tuple(name.split(".")), _checked(text, f"--set {name}")


def _checked(text: str, source: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{source}: it is not UTF-8 text") from None
    return text


def _check_no_secret(key: tuple[str, ...], value: Any, source: str) -> None:
    """Raise ConfigError for a password on the command line, which every process of the machine can read there."""
    if key == ("broker", "password") or (key == ("broker",) and isinstance(value, dict) and "password" in value):
        raise ConfigError(
            f"{source}: no password is taken from the command line, where others can read it; write it into a file and "
            "set broker.password_file, or set FEDMQ_BROKER__PASSWORD in the environment"
        )


def _value(key: tuple[str, ...], text: str) -> Any:
    if key in _TEXTS:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return str(Path(value).expanduser().absolute()) if key in _PATHS and isinstance(value, str) else value


def _put(data: dict[str, Any], key: tuple[str, ...], value: Any, source: str) -> None:
    for part in key[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{source}: {part!r} is a value, not a section")
    data[key[-1]] = value


def _sentence(problem: Any, origins: Mapping[tuple[str, ...], str], where: str) -> str:
    location = tuple(str(part) for part in problem["loc"])
    source = next((origins[location[:end]] for end in range(len(location), 0, -1) if location[:end] in origins), "")
    if not source:
        # What is wrong with a section as a whole may come from one of the values that were set in it.
        inside = _of_these(problem["msg"], {k: o for k, o in origins.items() if location == k[: len(location)]})
        if inside and problem["type"] == "extra_forbidden":
            where = ""  # it was set, whatever the file has
        source = " with ".join(filter(None, (where, ", ".join(inside)))) if where or inside else "settings"
    key = ".".join(location) or "file"
    if source == f"--set {key}":
        source = "--set"  # the key follows
    elif source.startswith("--") and "." not in source:
        source, key = "", source  # an option of its own
    return _found(problem, location, key) if not source else f"{source}: {_found(problem, location, key)}"


def _of_these(message: str, origins: Mapping[tuple[str, ...], str]) -> list[str]:
    """Where the keys came from that a message names; where all did if it names none."""
    words = set(re.findall(r"\w+", message))
    return [origin for key, origin in origins.items() if key[-1] in words] or list(origins.values())


def _found(problem: Any, location: tuple[str, ...], key: str) -> str:
    """What is wrong with a key, without where it came from."""
    if problem["type"] == "missing":
        return f"{key}: missing; add it"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_advice(location[-1], _names(location[:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}"
    if problem["type"] == "string_pattern_mismatch":
        message = "1 to 64 of A-Z a-z 0-9 _ -"  # the one pattern that there is
    if problem["type"].startswith("byte_size"):
        message = "a number of bytes, such as 20000000 or '20MB'"
    if problem["type"] == "string_type" and location[-1:] in (("codec",), ("snapshot_codec",)):
        message = f"one of {', '.join(CODECS)}"
    if problem["type"] == "model_type":
        message = f"a section, [{key}]"
    message = message.removeprefix("Input should be ")
    return f"{key}: found {_shown(problem.get('input'), location)}, expected: {message[:1].lower()}{message[1:]}"


def _shown(found: Any, location: tuple[str, ...]) -> str:
    """What stands somewhere, for a message; only its kind where a login may be in it."""
    if any("password" in part for part in location):
        return "a secret"
    if isinstance(found, dict | list):
        return "a section" if isinstance(found, dict) else "a list"
    if isinstance(found, str) and (".".join(location) in ("", *_SECTIONS) or "@" in found):
        return "a text"
    return repr(found)


def _advice(name: str, known: list[str]) -> str:
    """What somebody may have meant who wrote a name that a section does not have."""
    elsewhere = [f"{section}.{name}" for section in _SECTIONS if name in _names(tuple(section.split(".")))]
    close = difflib.get_close_matches(name, known, 1)
    meant = elsewhere or ([_OTHER_WORDS[name]] if _OTHER_WORDS.get(name) in known else close)
    return f"did you mean {' or '.join(map(repr, meant))}?" if meant else f"known are {', '.join(known)}"


def _names(section: tuple[str, ...]) -> list[str]:
    model: Any = Settings
    for part in section:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
