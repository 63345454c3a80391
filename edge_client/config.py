"""`[device]`: what a device decides for itself. Nothing here changes what training means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ByteSize, ConfigDict, Field

from fedmq.schemas.topics import ID_PATTERN

__all__ = ["DeviceSettings"]


DailyBytes = Annotated[ByteSize, Field(ge=100_000)]
"""Less than this is spent on being there: pings and statuses take tens of kilobytes a day."""


class DeviceSettings(BaseModel):
    """The `[device]` section of a federation's file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    client_id: Annotated[str, Field(pattern=ID_PATTERN)] | None = Field(
        None, description="whose login and keys these are; `fedmq provision` writes it, and `--client-id` is not needed"
    )
    folder: Path | None = Field(None, description="for the outbox; by default one for each client in the state folder")
    max_outbox_bytes: int = Field(1 << 30, ge=1 << 20, description="bytes of updates that wait at most; the oldest go")
    max_epochs: int | None = Field(None, ge=1, description="this device's share, if it is less than the plan's")
    max_steps: int | None = Field(None, ge=1, description="the same in optimizer steps")
    threads: int | None = Field(
        None, ge=1, le=1024, description="threads that torch may use; its own choice by default"
    )
    daily_uplink: DailyBytes | None = Field(
        None, description="bytes to send a day at most (UTC), such as '20MB'; what is beyond waits for the next day"
    )
    daily_downlink: DailyBytes | None = Field(None, description="the same for what is received")
    pace: float = Field(0.0, ge=0, le=86_400, description="seconds that a job lasts at least: simulates a slow device")
