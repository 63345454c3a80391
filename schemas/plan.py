"""How to train: the part of the federation's settings that travels with the model. Data, never code."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fedmq.schemas.codecs import CODECS, Encoding

__all__ = ["CodecName", "Plan"]


def _known(name: str) -> str:
    if name not in CODECS:
        raise ValueError(f"found {name!r}, expected one of {', '.join(CODECS)}")
    return name


CodecName = Annotated[str, AfterValidator(_known)]
"""The name of a codec that this FedMQ has."""

Pattern = Annotated[str, Field(min_length=1, max_length=128)]


class Plan(BaseModel):
    """Everything that the aggregator tells a device about training.

    A key that a device does not know would change the meaning of the others, so it is refused, not ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    local_epochs: int = Field(1, ge=1, le=1000, description="passes over the device's data for one update")
    local_steps: int | None = Field(
        None, ge=1, le=1_000_000, description="optimizer steps for one update; in place of epochs"
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="samples in a step")
    learning_rate: float = Field(0.05, gt=0, le=100, description="of the device's optimizer")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="started afresh for every update")
    momentum: float = Field(0.0, ge=0, lt=1, description="of SGD on the device")
    weight_decay: float = Field(0.0, ge=0, le=10, description="of the device's optimizer")
    proximal: float = Field(
        0.0, ge=0, le=100, description="rho in the added loss rho/2 * |x - x_base|^2 (FedProx, FedAsync)"
    )
    codec: CodecName = Field("eden4", description="how an update becomes bytes")
    zstd: bool = Field(True, description="compress an update's bytes where that makes them fewer")
    top_k_fraction: float = Field(0.07, gt=0, le=1, description="of the parameters that codec = 'top_k' sends")
    unbiased: bool = Field(
        False, description="codecs int8 and eden: errors that are zero in the mean, for greater ones; without feedback"
    )
    error_feedback: bool = Field(
        True, description="what int8, eden or top_k leave out of an update is added to the next one"
    )
    max_staleness: int | None = Field(
        None, ge=0, le=1_000_000, description="older updates are refused; none by default"
    )
    local_parameters: tuple[Pattern, ...] = Field(
        (), max_length=32, description="name patterns such as 'head.*' that stay on the device"
    )
    retrain_after: float = Field(
        5.0,
        ge=0.01,
        le=86_400,
        description="seconds until a device trains again on a version it knows, "
        "doubled each time; not while an update of it is on its way",
    )
    continuous: bool = Field(
        False, description="train again at once, on a version that it knows if there is no newer one"
    )

    def encoding(self, seed: int) -> Encoding:
        """What its codec's encoder has to know."""
        return Encoding(self.unbiased, self.top_k_fraction, seed)

    @model_validator(mode="after")
    def _momentum_needs_sgd(self) -> Self:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum is a setting of optimizer = 'sgd', found optimizer = {self.optimizer!r}")
        return self
