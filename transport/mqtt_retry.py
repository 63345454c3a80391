"""When to connect again after a failure, and with which version of MQTT."""

from __future__ import annotations

import random
import time
from typing import Literal

__all__ = ["MqttVersion", "Retry"]

MqttVersion = Literal["5", "3.1.1"]

_FIRST_PAUSE_SECONDS = 0.2
# What ends sooner counts as one more failure: else two processes with one client id would fight at full speed.
_LASTED_SECONDS = 10.0
# A version that has worked is not given up because a broker was just stopping.
_REFUSALS = 3


class Retry:
    """What has to be remembered from one connection to the next.

    Attributes:
        at: time.monotonic() of the next attempt.
        version: the version of MQTT to ask for.

    """

    def __init__(self, mqtt_version: Literal["auto", "5", "3.1.1"], max_seconds: float) -> None:
        self.at = 0.0
        self.version: MqttVersion = "3.1.1" if mqtt_version == "3.1.1" else "5"
        self._may_change = mqtt_version == "auto"
        self._version_works = False
        self._refusals = 0
        self._max_seconds = max_seconds
        self._failures = 0
        self._connected_at: float | None = None

    def connected(self) -> None:
        """The broker has accepted a connection."""
        self._connected_at = time.monotonic()
        self._version_works, self._refusals = True, 0

    def failed(self, *, version_refused: bool = False) -> bool:
        """A connection ended or could not be made; whether the next attempt is another version's, at once."""
        now = time.monotonic()
        if self._connected_at is not None and now - self._connected_at >= _LASTED_SECONDS:
            self._failures = 0
        self._connected_at = None
        if version_refused and self._may_change and self._other_version():
            self.at = now
            return True
        # At random up to a bound that doubles: a fleet that lost its broker must not come back in step.
        bound = min(self._max_seconds, _FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 20))
        self._failures += 1
        self.at = now + random.uniform(0.0, bound)
        return False

    def _other_version(self) -> bool:
        self._refusals += 1
        if self._version_works and self._refusals < _REFUSALS:
            return False
        self.version = "3.1.1" if self.version == "5" else "5"
        self._version_works, self._refusals = False, 0
        # Back at 5 both have failed, which a broker that is still starting explains better than its version.
        return self.version == "3.1.1"
