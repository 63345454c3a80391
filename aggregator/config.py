"""`[aggregator]`: how updates become versions, and where the run is kept."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.clipping import Bound, bound_of
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.quarantine import QuarantineRule
from fedmq.aggregator.staleness import StalenessName, staleness_named
from fedmq.aggregator.strategies import STRATEGIES, Strategy
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.plan import CodecName

__all__ = ["AggregatorSettings"]


def _whole(name: str) -> str:
    if name == "top_k":
        raise ValueError("found 'top_k', which would leave out most of the model; it is a codec for updates")
    return name


# On a broker without rules, anybody could bring another client there. What is signed is nobody else's.
_OFFENCES_WHEN_SIGNED = 20

SnapshotCodec = Annotated[CodecName, AfterValidator(_whole)]


class AggregatorSettings(BaseModel):
    """The `[aggregator]` section of a federation's file. A setting that the strategy does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    folder: Path | None = Field(None, description="of the run; runs/<federation> beside the file by default")
    seed: int = Field(0, ge=0, lt=1 << 63, description="for version 0")
    init: Path | None = Field(None, description="a safetensors file of version 0, in place of build_model()")
    publish_interval: float = Field(0.5, ge=0, le=3600, description="seconds between two snapshots at least")
    snapshot_codec: SnapshotCodec = Field("float16", description="how the weights travel to devices")
    spool_bytes: int | None = Field(
        None, ge=1 << 20, description="disk for updates that come in parts; by default 4 GiB, or four of the largest"
    )
    task_versions: tuple[str, ...] | None = Field(None, description="admitted task versions; any by default")
    max_norm: float | None = Field(None, description="an update whose delta is longer than this is refused")
    max_medians: float | None = Field(None, description="the same as a multiple of the clients' median norm")
    client_updates_per_minute: float | None = Field(
        None, gt=0, description="accepted updates of each client, as a rate; what is more waits"
    )
    client_updates_per_day: int | None = Field(
        None, ge=1, description="accepted updates of each client within a day of the run; what is more waits"
    )
    quarantine_after: int | None = Field(
        None,
        ge=0,
        description="hostile messages within about ten minutes, after which a client is not listened to; 0 for never."
        " By default 20 where messages are signed, else never",
    )
    quarantine_seconds: float = Field(3600.0, gt=0, le=1e9, description="how long it is not listened to")
    revoked_file: Path | None = Field(
        None,
        description="ids of devices that are out, one a line; `fedmq provision`'s; nobody comes back before a restart",
    )
    goal: Goal = Field(default_factory=Goal, description="when the run is finished")

    strategy: str = Field("fedbuff", description=", ".join(STRATEGIES))
    staleness: StalenessName | None = Field(None, description="constant, polynomial (the default), hinge, exponential")
    staleness_a: float | None = None
    staleness_b: float | None = None
    buffer_size: int | None = Field(None, description="K; follows the number of clients at work by default")
    server_learning_rate: float | None = None
    normalisation: Literal["reference", "sum", "paper"] | None = None
    reference_staleness: int | None = None
    statistics_rate: float | None = None
    sample_weights: bool | None = None
    momentum: float | None = None
    flush_timer: bool | None = None
    one_per_client: bool | None = Field(None, description="a client's second update waits for the next buffer")
    clip_norm: float | None = Field(None, description="no delta counts as longer than this")
    clip_medians: float | None = Field(None, description="the same as a multiple of the clients' median norm")
    hostile: float | None = Field(
        None,
        description="the share of a buffer that may be hostile, for trimmed_mean and multi_krum; 0.3 there",
    )
    alpha: float | None = None
    clients: int | None = None
    over_selection: float | None = None
    deadline: float | None = None

    @model_validator(mode="after")
    def _strategy_fits(self) -> Self:
        # pydantic reports a ValueError with the place in the file; the strategies say the rest.
        try:
            self.build_strategy()
            self.longest()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def build_strategy(self) -> Strategy:
        """The strategy that these settings describe.

        Raises:
            ConfigError: a number out of range, or a setting that this strategy does not have.

        """
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy {self.strategy!r}: expected one of {', '.join(STRATEGIES)}")
        takes = list(inspect.signature(STRATEGIES[self.strategy]).parameters)
        given: dict[str, Any] = {name: getattr(self, name) for name in _strategy_settings()}
        given = {name: value for name, value in given.items() if value is not None}
        for name in sorted(given):
            if name not in takes:
                settings = ", ".join(name for name in takes if name != "staleness")
                raise ConfigError(f"strategy {self.strategy!r} has no setting {name!r}; it has {settings}")
        if self.staleness or self.staleness_a is not None or self.staleness_b is not None:
            if "staleness" not in takes:
                raise ConfigError(f"strategy {self.strategy!r} has no staleness: what is late is refused")
            given["staleness"] = staleness_named(self.staleness or "polynomial", self.staleness_a, self.staleness_b)
        return STRATEGIES[self.strategy](**given)

    def describe_strategy(self) -> str:
        """The strategy and those of its settings that are set, in one line, such as "multi_krum, hostile = 0.3"."""
        names = _strategy_settings() | {"staleness", "staleness_a", "staleness_b"}
        given = {name: value for name in sorted(names) if (value := getattr(self, name)) is not None}
        return ", ".join([self.strategy, *(f"{name} = {json.dumps(value)}" for name, value in given.items())])

    def longest(self) -> Bound | None:
        """The bound on the norm of an update; raises ConfigError as `build_strategy`."""
        return bound_of("", "max", self.max_norm, self.max_medians)

    def quarantine(self, *, signed: bool) -> QuarantineRule | None:
        """For clients that send what no honest one does, in a federation whose messages are signed or not."""
        after = (_OFFENCES_WHEN_SIGNED if signed else 0) if self.quarantine_after is None else self.quarantine_after
        return QuarantineRule(after, self.quarantine_seconds) if after else None

    def allowance(self) -> Allowance:
        """What each client has."""
        return Allowance(self.client_updates_per_minute, self.client_updates_per_day)


def _strategy_settings() -> set[str]:
    """What any strategy takes, but for the staleness function, which is described by three settings."""
    return {name for make in STRATEGIES.values() for name in inspect.signature(make).parameters} - {"staleness"}
