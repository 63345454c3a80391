"""What the user of a device can do that is not let in."""

from __future__ import annotations

__all__ = ["REVOKED", "UNANSWERED", "of_a_login", "of_a_topic", "of_an_id"]

REVOKED = "this device was taken out of the federation; ask its operator for a new bundle, with another id"
"""Why a device ends whose update was refused as `revoked`."""

UNANSWERED = (
    "the aggregator is online and answers nothing that this device sends: is the device still in the federation, and "
    "its key the one that the aggregator has? ask the operator, or for a new bundle"
)


def of_a_login(reason: str) -> str:
    """Why the broker does not take the login, with what to do."""
    return f"{reason} (if this device was taken out of the federation, ask its operator for a new bundle)"


def of_a_topic(topic: str, reason: str, client_id: str) -> str:
    """That the broker refused one of a device's own topics, and what to do."""
    return f"{topic}: {reason}; {of_an_id(client_id)}"


def of_an_id(client_id: str) -> str:
    """What to look for where a login has no right to what its device says."""
    return (
        f"is {client_id!r} the id that this login is for, and still in the federation? "
        "use the id of the bundle, or ask the operator for a new one"
    )
