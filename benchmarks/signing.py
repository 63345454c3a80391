"""What signatures cost: a message of each size is signed and verified as in a provisioned federation.

python benchmarks/signing.py
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmq.schemas.messages import Offer, UpdateId
from fedmq.schemas.signing import opened, sealed
from fedmq.schemas.wire import decode, encode

SIZES = {"no body": 0, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000}
RUNS = 7


def milliseconds(what: Callable[[], object], times: int) -> float:
    """Of the processor, the least of the runs: others may use the machine."""
    found = []
    for _ in range(RUNS):
        begun = time.process_time()
        for _ in range(times):
            what()
        found.append(1000 * (time.process_time() - begun) / times)
    return min(found)


def main() -> None:
    key = Ed25519PrivateKey.generate()
    public, topic = key.public_key(), "fedmq/bench/update/dev-1"
    print("| body | sign, ms | verify, ms | both, ms | decode and SHA-256 without signatures, ms |")
    print("| --- | --- | --- | --- | --- |")
    for name, size in SIZES.items():
        body = os.urandom(size)
        offer = Offer(
            run="a" * 32, client_id="dev-1", update=UpdateId(outbox_id="b" * 32, sequence=1), base_version=1,
            layout="c" * 64, codec="float32", size=size, digest=hashlib.sha256(body).hexdigest(), num_samples=1,
        )  # fmt: skip
        payload = encode(offer, body)
        signed = sealed(topic, payload, 1, key.sign)

        def verify(signed: bytes = signed) -> None:
            found = opened(topic, signed)
            assert found is not None
            public.verify(found.signature, found.content)

        def plain(payload: bytes = payload) -> None:
            hashlib.sha256(decode(payload, Offer)[1]).digest()

        def sign(payload: bytes = payload) -> None:
            sealed(topic, payload, 1, key.sign)

        times = 200 if size > 50_000 else 1000
        costs = [milliseconds(what, times) for what in (sign, verify, plain)]
        print(f"| {name} | {costs[0]:.3f} | {costs[1]:.3f} | {costs[0] + costs[1]:.3f} | {costs[2]:.3f} |")


if __name__ == "__main__":
    main()
