from __future__ import annotations

import pytest

from tests.system.processes import Federation, Program, until

pytestmark = pytest.mark.broker


def start_twins(fed: Federation, client_id: str, version: str) -> list[Program]:
    options = ("--set", f'broker.mqtt_version="{version}"', "--set")
    return [fed.client(client_id, *options, f'device.folder="{fed.folder}/{client_id}-{n}"') for n in range(2)]


def test_of_two_live_clients_with_one_id_one_stops_with_a_reason_and_the_other_goes_on(at_work: Federation) -> None:
    pairs = {f"twin-{n}": start_twins(at_work, f"twin-{n}", version) for n, version in enumerate(("5", "3.1.1"))}
    for client_id, pair in pairs.items():
        until(lambda pair=pair: not all(p.running for p in pair), "one of the two to stop")  # type: ignore[misc]
        loser, winner = sorted(pair, key=lambda program: program.running)
        assert loser.ends() == 1
        assert f"another live client uses the id '{client_id}'" in loser.log
        assert loser.log.count("INFO    fedmq.client connected") >= 3
        at_work.until(lambda c=client_id: at_work.status(c).state == "online", "the other's status")  # type: ignore[misc]
        at_work.work(client_id, updates=2)
        assert winner.running
