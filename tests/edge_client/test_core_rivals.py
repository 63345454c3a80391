"""Two processes with one client id take the connection from each other for ever, unless one of them gives way."""

from __future__ import annotations

import random

from fedmq.edge_client.actions import Stop
from fedmq.edge_client.core import ClientCore
from tests.edge_client.words import status

SMALL, GREAT = "1" * 32, "9" * 32


def core_of(incarnation: str) -> ClientCore:
    return ClientCore(incarnation, random.Random(0), [])


def reconnect(core: ClientCore, rival: str, now: float) -> list[Stop]:
    """It loses the connection and has it back, and finds the other's status on its own topic."""
    core.disconnected()
    core.connected(now)
    return [action for action in core.own_status(status(rival), now) if isinstance(action, Stop)]


def test_of_two_clients_with_one_id_exactly_one_stops_after_three_takeovers_and_the_other_goes_on() -> None:
    cores = {SMALL: core_of(SMALL), GREAT: core_of(GREAT)}
    for core in cores.values():
        core.connected(0.0)
    takeovers = dict.fromkeys(cores, 0)
    stopped: dict[str, Stop] = {}
    for second in range(1, 100):
        mine, rival = (SMALL, GREAT) if second % 2 else (GREAT, SMALL)
        if mine in stopped or rival in stopped:
            continue
        takeovers[mine] += 1
        for stop in reconnect(cores[mine], rival, float(second)):
            stopped[mine] = stop
    assert list(stopped) == [GREAT]
    assert takeovers[GREAT] == 3
    assert stopped[GREAT].code == 1
    assert "'dev'" in stopped[GREAT].why


def test_a_rival_that_never_gives_way_stops_also_the_other_after_six() -> None:
    core = core_of(SMALL)
    core.connected(0.0)
    stops = [reconnect(core, GREAT, float(second)) for second in range(1, 7)]
    assert [len(stop) for stop in stops] == [0, 0, 0, 0, 0, 1]


def test_takeovers_that_are_more_than_a_minute_apart_stop_nobody() -> None:
    core = core_of(GREAT)
    core.connected(0.0)
    assert not any(reconnect(core, SMALL, 31.0 * number) for number in range(1, 50))


def test_what_an_earlier_process_left_is_no_rival() -> None:
    core = core_of(GREAT)
    core.connected(0.0)
    for _ in range(10):
        assert core.own_status(status(SMALL), 0.0) == []
    assert reconnect(core, SMALL, 1.0) == []
    assert reconnect(core, SMALL, 2.0) == [], "the first connection's did not count"


def test_its_own_status_is_no_rival() -> None:
    core = core_of(GREAT)
    core.connected(0.0)
    assert not any(reconnect(core, GREAT, float(second)) for second in range(1, 20))


def test_a_rival_counts_once_in_a_connection() -> None:
    core = core_of(GREAT)
    core.connected(0.0)
    reconnect(core, SMALL, 1.0)
    for _ in range(10):
        assert core.own_status(status(SMALL), 1.0) == []
