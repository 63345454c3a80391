"""`fedmq` with one check of signatures left out: `python -m tests.hostile_broker.mutated MUTATION client …`.

The hostile broker has to make something of each of these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256

from fedmq.cli import main
from fedmq.schemas import signing
from fedmq.signed_link import SignedLink
from fedmq.transport.link import Message

__all__ = ["MUTATIONS"]

_refusal = SignedLink._refusal


def unsigned_is_heard() -> None:
    """What has no signature is believed."""

    def refusal(self: SignedLink, message: Message) -> str | None:
        why = _refusal(self, message)
        return None if why == "it is not signed" else why

    SignedLink._refusal = refusal  # type: ignore[method-assign]


def old_sessions_are_heard() -> None:
    """What an earlier start has said is believed."""

    def refusal(self: SignedLink, message: Message) -> str | None:
        why = _refusal(self, message)
        return None if why is not None and why.startswith("it is an old one") else why

    SignedLink._refusal = refusal  # type: ignore[method-assign]


def anyone_signs() -> None:
    """A good signature counts, whoever's it is."""

    def refusal(self: SignedLink, message: Message) -> str | None:
        why = _refusal(self, message)
        return None if why is not None and why.startswith("it is not signed with") else why

    SignedLink._refusal = refusal  # type: ignore[method-assign]


def the_body_is_not_covered() -> None:
    """The digest of the body is not signed."""
    content = signing._content
    nothing = sha256(b"").digest()
    signing._content = lambda topic, header, digest: content(topic, header, nothing)


def the_topic_is_not_covered() -> None:
    """What was signed for one topic counts on another of the same author."""
    content = signing._content
    signing._content = lambda topic, header, digest: content("", header, digest)


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation
    for mutation in (
        unsigned_is_heard,
        old_sessions_are_heard,
        anyone_signs,
        the_body_is_not_covered,
        the_topic_is_not_covered,
    )
}

if __name__ == "__main__":
    MUTATIONS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
