"""When a run is finished."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedmq.schemas.messages import Metrics

__all__ = ["Goal"]

_WHERE = {"devices": "on devices with more than half of the test samples", "aggregator": "on the aggregator's own data"}


class Goal(BaseModel):
    """`[aggregator.goal]`: whatever of these comes first ends the run; with none it goes on until it is stopped."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    versions: int | None = Field(None, ge=1, description="this many versions")
    seconds: float | None = Field(None, gt=0, description="this much time with the aggregator running")
    metric: str = Field("accuracy", min_length=1, max_length=64, description="what `target` is about")
    target: float | None = Field(None, description="the metric's value at which the run is finished")
    higher_is_better: bool = Field(True, description="false for a loss")
    source: Literal["devices", "aggregator"] = Field("devices", description="whose evaluation")

    def reached(self, version: int, seconds: float, devices: float | None, aggregator: Metrics | None) -> str | None:
        """Which part of the goal is reached, as a sentence; None if the run goes on.

        Args:
            version: of the run.
            seconds: of the run.
            devices: the metric that devices with more than half of the test samples reach.
            aggregator: its own evaluation.

        """
        if self.versions is not None and version >= self.versions:
            return f"{version} versions"
        if self.seconds is not None and seconds >= self.seconds:
            return f"{self.seconds:g} seconds"
        value = devices if self.source == "devices" else (aggregator or {}).get(self.metric)
        if self.target is None or value is None:
            return None
        if value >= self.target if self.higher_is_better else value <= self.target:
            return f"{self.metric} {value:.4f}"
        return None

    def __str__(self) -> str:
        parts = [f"{self.versions} versions"] if self.versions else []
        if self.target is not None:
            parts.append(
                f"{self.metric} {'>=' if self.higher_is_better else '<='} {self.target:g} {_WHERE[self.source]}"
            )
        parts += [f"{self.seconds:g} s"] if self.seconds else []
        return " or ".join(parts) or "until stopped"
