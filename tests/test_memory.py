"""How many vectors lie in memory at most: a copy more of a model anywhere, and one of these fails.

Each runs in a process of its own, whose allocator keeps nothing that was freed, and reads the kernel's own maximum.
Pages of mapped files count. `benchmarks/memory.py` measures whole federations.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux says how much memory there was at most"
)

FLOATS = 9_000_000  # a little more than what is done between two messages

BOTH = """
import sys
from pathlib import Path
import numpy as np
from fedmq.edge_client.ahead import Ahead
from fedmq.edge_client.job import make
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.training import NumpyTrainer
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import Head, Offer, UpdateId
from fedmq.schemas.plan import Plan
from fedmq.tasks.contract import Trained
from fedmq.transport.spool import FileSpool

floats, codec, snapshots, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
LAYOUT, RUN, RANDOM = Layout.of([Entry("w", (floats,))]), "1" * 32, np.random.default_rng(1)
NOISE = np.empty(1 << 16, np.float32)

def memory(field):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition(field + ":")[2].split()[0])

def forget():
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")

def spool(name, body):
    spool = FileSpool(folder / name, "key", len(body))
    for start in range(0, len(body), 1 << 17):
        spool.write(start, memoryview(body)[start : start + (1 << 17)])
    return spool

def train(weights, plan):
    for start in range(0, floats, len(NOISE)):
        part = weights["w"][start : start + len(NOISE)]
        part += RANDOM.standard_normal(len(part), np.float32, out=NOISE[: len(part)])
    return Trained(weights, 1)

def job(outbox, snapshot):
    head = Head(run=RUN, version=0, plan=Plan(codec=codec), layout=LAYOUT.digest, codec=snapshots,
                size=len(snapshot), digest="0" * 64)
    made = make(head, snapshot, LAYOUT, NumpyTrainer(train, "1"), outbox.residual(), 1, outbox.ahead())
    offer = Offer(run=RUN, client_id="ada", update=UpdateId(outbox_id="0" * 32, sequence=0), base_version=0,
                  layout=LAYOUT.digest, codec=made.codec, size=made.size, digest=made.digest, num_samples=1)
    return outbox.add(offer, made.ahead, None)[0]

outbox = Outbox(folder / "outbox")
snapshot = spool("model", codec_named(snapshots).encode(np.zeros(floats, np.float32), LAYOUT)).view()
"""

DEVICE = (
    BOTH
    + """
before = forget()
first = job(outbox, snapshot)
outbox.delete(first.update.sequence, returns=True)  # so that the next takes its content and the residual
job(outbox, snapshot)
print(memory("VmHWM") - before)
"""
)

AGGREGATOR = (
    BOTH
    + """
from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.kept_snapshot import Kept
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import fedbuff
from fedmq.aggregator.writer import Writer

offer = job(outbox, snapshot)
spool = spool("update", outbox.body(offer.update.sequence))
before = forget()
store = Store(folder / "run", "memory")
writer = Writer(store, lambda: None)
state = State.initial(RUN, LAYOUT, np.ones(floats, np.float32))
core = AggregatorCore(state, fedbuff(buffer_size=2), Rules(RUN, LAYOUT), Goal())
for sequence in range(2):
    update = UpdateId(outbox_id="0" * 32, sequence=sequence)
    receipt = core.judge("ada", offer.model_copy(update={"update": update}), spool.view(), 0.0, digest=spool.digest())
    assert receipt.verdict == "accepted"
    assert not writer.begin(core.state, core.take())
    assert writer.take(None)
Kept(memoryview(codec_named(snapshots).encode(core.state.weights, LAYOUT)), folder)
assert core.state.version == 1
store.close()
del core, state, writer, store
store = Store(folder / "run", "memory")
assert store.load(LAYOUT).version == 1
print(memory("VmHWM") - before)
"""
)


def models_in_memory(script: str, codec: str, snapshots: str, folder: Path) -> float:
    """How many times the model the script had in memory at most."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", script, str(FLOATS), codec, snapshots, str(folder)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return int(said.stdout) / (4 * FLOATS)


@pytest.mark.parametrize(
    ("codec", "snapshots", "most"),
    [
        ("float32", "float32", 2.1),  # the update, and what zstd makes of it; of snapshot and residual a few blocks
        ("int8", "float32", 1.95),
        ("eden4", "float16", 2.2),  # the weights, and the copy of them that is trained
    ],
)
def test_a_device_has_two_models_in_memory(codec: str, snapshots: str, most: float, tmp_path: Path) -> None:
    assert models_in_memory(DEVICE, codec, snapshots, tmp_path) < most


@pytest.mark.parametrize(
    ("codec", "snapshots", "most"),
    [
        ("float32", "float32", 3.4),  # weights and buffer, and the update, which zstd gives away as a whole
        ("int8", "float32", 2.75),  # the update as it was before zstd
        ("eden4", "float16", 2.75),
    ],
)
def test_an_aggregator_has_three_models_in_memory(codec: str, snapshots: str, most: float, tmp_path: Path) -> None:
    assert models_in_memory(AGGREGATOR, codec, snapshots, tmp_path) < most
