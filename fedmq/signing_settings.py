"""`[signing]`: which keys sign what this side sends, and verify what it hears."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SigningSettings"]


class SigningSettings(BaseModel):
    """The `[signing]` section of a federation's file; `fedmq provision` writes it. Without it nothing is signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_file: Path | None = Field(None, description="PEM file with the own Ed25519 private key; read again on change")
    aggregator_keys_file: Path | None = Field(
        None, description="the aggregator's public keys, 64 hex digits in each line; what no other signed is refused"
    )
    device_keys_file: Path | None = Field(
        None, description="the devices' public keys: in each line an id and 64 hex digits; for the aggregator"
    )
