"""What `fedmq check` finds out about keys: whether this device believes its aggregator, and what does not show."""

from __future__ import annotations

from fedmq.schemas.errors import ConfigError, ProtocolError
from fedmq.schemas.signing import Keys, opened
from fedmq.schemas.topics import Topics
from fedmq.signed_link import forged
from fedmq.transport.link import Message

__all__ = ["CheckedSignatures"]


class CheckedSignatures:
    """Of what is retained.

    Args:
        topics: of the federation.
        client_id: of the device.
        keys: its own; nothing is looked at if None.

    """

    def __init__(self, topics: Topics, client_id: str, keys: Keys | None) -> None:
        self._topics = topics
        self._own = topics.status(client_id)
        self._keys = keys
        self._forged: dict[str, str | None] = {}  # by topic, why what was heard is not its author's

    def heard(self, message: Message) -> None:
        """Look at what was retained on a topic."""
        if self._keys is None or not message.payload:
            return
        try:
            signed = opened(message.topic, message.payload)
        except ProtocolError:
            self._forged[message.topic] = "its header cannot be read"
        else:
            self._forged[message.topic] = forged(self._topics, self._keys, message.topic, signed)

    def of(self, topic: str) -> str | None:
        """What to say of a topic; None if nothing was heard there that could be looked at."""
        if topic not in self._forged:
            return None
        why = self._forged[topic]
        return "works" if why is None else f"heard, but {why}"

    def conclude(self) -> None:
        """Say what is known; raises ConfigError where what the aggregator shows is not signed with a known key."""
        if self._keys is None:
            return
        if self._forged.pop(self._own, None) is not None:
            print(f"signing    what is left on {self._own} is not signed with this device's key:")
            print("           is signing.key_file another device's, or was it renewed since?")
        print("signing    whether the aggregator has this device's key does not show here; once the device has run,")
        print("           it shows in the operator's `fedmq status`")
        if any(self._forged.values()):
            raise ConfigError(
                "no key in signing.aggregator_keys_file has signed what this federation's aggregator shows: take the "
                "newest aggregator-keys from the operator"
            )
        if not self._forged:
            print("           and no signature of the aggregator was seen")
