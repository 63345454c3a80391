"""Hypothesis strategies for what travels: layouts, plans, and every message of the protocol."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fedmq.schemas.codecs import CODECS
from fedmq.schemas.errors import Reason
from fedmq.schemas.layout import Entry, Kind, Layout
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    DeviceEvaluation,
    Evaluation,
    Head,
    Later,
    LayoutNotice,
    Missing,
    Need,
    Offer,
    Part,
    Progress,
    ProtocolMessage,
    Receipt,
    Reply,
    SnapshotPart,
    UpdateId,
)
from fedmq.schemas.plan import Plan

unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For every property: enough examples for small inputs, and no failure because the machine is busy."""

ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
hex128 = st.binary(min_size=16, max_size=16).map(bytes.hex)
sha256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
counts = st.integers(0, (1 << 63) - 1)
texts = st.text(max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(st.text(min_size=1, max_size=64), finite, max_size=4)

entries = st.builds(
    Entry,
    name=st.text(min_size=1, max_size=20),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    kind=st.sampled_from(get_args(Kind)),
)
layouts = st.lists(entries, min_size=1, max_size=6, unique_by=lambda entry: entry.name).map(Layout.of)

_optimizers = st.fixed_dictionaries({"optimizer": st.just("sgd"), "momentum": st.floats(0, 0.99)}) | (
    st.fixed_dictionaries({"optimizer": st.sampled_from(["adam", "adamw"])})
)
_plans = st.fixed_dictionaries(
    {
        "local_epochs": st.integers(1, 1000),
        "local_steps": st.none() | st.integers(1, 1_000_000),
        "batch_size": st.integers(1, 65_536),
        "learning_rate": st.floats(1e-6, 100),
        "weight_decay": st.floats(0, 10),
        "proximal": st.floats(0, 100),
        "codec": st.sampled_from(list(CODECS)),
        "max_staleness": st.none() | st.integers(0, 1_000_000),
        "local_parameters": st.lists(st.text(min_size=1, max_size=20), max_size=3).map(tuple),
        "retrain_after": st.floats(0.01, 86_400),
        "continuous": st.booleans(),
        "zstd": st.booleans(),
        "top_k_fraction": st.floats(1e-6, 1),
        "unbiased": st.booleans(),
        "error_feedback": st.booleans(),
    }
)
plans = st.builds(lambda plan, optimizer: Plan(**plan, **optimizer), _plans, _optimizers)

updates = st.builds(UpdateId, outbox_id=hex128, sequence=counts)
evaluations = st.builds(Evaluation, num_samples=counts, metrics=metrics)
states = st.sampled_from(["training", "finished"])
presences = st.sampled_from(["online", "offline"])


def _few(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3).map(tuple)


MESSAGES: dict[type[ProtocolMessage], st.SearchStrategy[Any]] = {
    Head: st.builds(
        Head,
        run=hex128,
        version=counts,
        state=states,
        plan=plans,
        layout=sha256,
        codec=ids,
        size=counts,
        digest=sha256,
        slot=st.none() | counts,
        part_bytes=st.none() | st.integers(1, 1 << 28),
    ),
    LayoutNotice: st.builds(LayoutNotice, run=hex128, digest=sha256),
    Offer: st.builds(
        Offer,
        run=hex128,
        client_id=ids,
        update=updates,
        base_version=counts,
        layout=sha256,
        codec=ids,
        size=counts,
        digest=sha256,
        num_samples=st.integers(1, (1 << 63) - 1),
        metrics=metrics,
        evaluation=st.none() | evaluations,
        task_version=texts,
        number=st.none() | counts,
    ),
    Part: st.builds(Part, run=hex128, update=updates, digest=sha256, offset=counts, number=counts),
    Need: st.builds(Need, run=hex128, version=counts, parts=_few(counts), done=st.booleans()),
    SnapshotPart: st.builds(SnapshotPart, run=hex128, version=counts),
    Reply: st.builds(
        Reply,
        run=hex128,
        incarnation=hex128,
        receipts=_few(
            st.builds(
                Receipt,
                update=updates,
                verdict=st.sampled_from(["accepted", "rejected"]),
                reason=st.none() | st.sampled_from(get_args(Reason)),
                detail=texts,
                version=st.none() | counts,
                staleness=st.none() | counts,
                digest=st.none() | sha256.map(lambda digest: digest[:16]),
            )
        ),
        later=_few(
            st.builds(
                Later,
                update=updates,
                reason=st.sampled_from(["busy", "slot", "rate", "quarantine", "disk"]),
                seconds=st.floats(0, 86_400),
            )
        ),
        missing=_few(
            st.builds(
                Missing,
                update=updates,
                ranges=_few(st.tuples(counts, counts)),
                window=st.integers(1, 64),
                heard=st.none() | counts,
            )
        ),
    ),
    AggregatorPresence: st.builds(
        AggregatorPresence,
        state=st.just("starting") | presences,
        run=hex128,
        incarnation=hex128,
        version=counts,
        detail=texts,
    ),
    ClientStatus: st.builds(
        ClientStatus,
        state=presences,
        client_id=ids,
        incarnation=hex128,
        connection=counts,
        activity=st.sampled_from(["connecting", "waiting", "training", "error", "stopped", "finished"]),
        detail=texts,
        run=st.none() | hex128,
        base_version=st.none() | counts,
        waiting=counts,
        accepted=counts,
        rejected=counts,
        metrics=metrics,
        task_version=texts,
        uplink_bytes=counts,
        downlink_bytes=counts,
        uplink_today=st.none() | counts,
        downlink_today=st.none() | counts,
    ),
    Progress: st.builds(
        Progress,
        run=hex128,
        version=counts,
        state=states,
        strategy=ids,
        updates=counts,
        rejected=st.dictionaries(st.sampled_from(get_args(Reason)), counts, max_size=4),
        updates_per_second=st.floats(0, 1e9),
        mean_staleness=st.floats(0, 1e9),
        buffer_size=counts,
        buffered=counts,
        goal=texts,
        limits=texts,
        waits=texts,
        devices=st.none()
        | st.builds(DeviceEvaluation, clients=counts, num_samples=counts, mean=metrics, spread=metrics),
        devices_version=st.none() | counts,
        aggregator=st.none() | metrics,
        aggregator_version=st.none() | counts,
        clients=_few(ids),
        uplink_bytes=counts,
    ),
}
"""Every message type, and how to draw one."""
