"""One device with valid credentials whose messages are tiny, and take the aggregator a tenth of a second each."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Entry, Layout
from tests.system.handmade import HandmadeClient
from tests.system.processes import Federation

pytestmark = pytest.mark.broker

LAYOUT = Layout.of([Entry("w", (8_000_000,))])
BODY = bytes(codec_named("eden1-zstd").encode(np.zeros(LAYOUT.size, np.float32), LAYOUT))  # of some fifty bytes


def sends(client: HandmadeClient) -> Callable[[int], None]:
    def send(sequence: int) -> None:
        client.send(client.offer(sequence, BODY, layout=LAYOUT.digest, codec="eden1-zstd", base_version=0), BODY)

    return send


@pytest.mark.parametrize("rate", [12, None])
def test_others_have_their_receipts_while_a_device_sends_more_than_can_be_decoded(
    fed: Federation, rate: int | None
) -> None:
    assert len(BODY) < 200
    fed.set(aggregator__client_updates_per_minute=rate, aggregator__buffer_size=1000)
    save_file({"w": np.zeros(LAYOUT.size, np.float32)}, fed.folder / "weights.safetensors")
    fed.aggregator()
    over = threading.Event()

    def flood(mallory: HandmadeClient) -> None:
        send, sequence = sends(mallory), 0
        while not over.wait(0.005):
            send(sequence)
            sequence += 1

    with HandmadeClient(fed, "mallory") as mallory, HandmadeClient(fed, "alice") as alice:
        flooding = threading.Thread(target=flood, args=(mallory,))
        flooding.start()
        try:
            alice.listen(5.0)  # until much waits in the broker
            sends(alice)(0)
            assert alice.receipt(0).verdict == "accepted"
        finally:
            over.set()
            flooding.join()
