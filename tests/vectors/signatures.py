"""Signed messages as bytes, with the key pair of RFC 8032's first test: what another language has to get."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmq.schemas.signing import opened, sealed

PRIVATE = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"

__all__ = ["signatures"]


def signatures(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Each kind of message, signed once."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(PRIVATE))
    made = []
    for session, message in enumerate(messages, 1):
        payload = sealed(message["topic"], bytes.fromhex(message["payload"]), session, key.sign)
        signed = opened(message["topic"], payload)
        assert signed is not None
        made.append(
            {
                "topic": message["topic"],
                "session": session,
                "unsigned": message["payload"],
                "signed": signed.content.hex(),
                "payload": payload.hex(),
            }
        )
    return {"private": PRIVATE, "public": key.public_key().public_bytes_raw().hex(), "messages": made}
