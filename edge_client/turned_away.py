"""What the user of a device can do that is not let in."""

from __future__ import annotations

__all__ = ["OVER_QUOTA", "REVOKED", "UNANSWERED", "of_a_login", "of_a_topic", "of_an_id", "of_quarantine"]

REVOKED = "this device was taken out of the federation; ask its operator for a new bundle, with another id"
"""Why a device ends whose update was refused as `revoked`."""

UNANSWERED = (
    "the aggregator is online and answers nothing that this device sends: is the device still in the federation, and "
    "its key the one that the aggregator has? ask the operator, or for a new bundle"
)

OVER_QUOTA = (
    "the aggregator takes no more updates of this device today (its client_updates_per_day); what this device makes "
    "waits here until it does"
)


def of_quarantine(client_id: str) -> str:
    """That the aggregator listens to nothing of a device, and what to do."""
    return (
        "in quarantine: the aggregator has refused too many of this device's messages, and listens to none for a "
        "while; its updates wait here. See in its log why they were rejected, and mend its task or settings; it ends "
        f"by itself, or the operator ends it with `fedmq release {client_id}` on the aggregator's machine"
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
