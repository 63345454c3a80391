from __future__ import annotations

from fedmq.transport.virtual_time import VirtualTime


def test_the_clock_moves_from_one_thing_to_the_next_and_no_further_than_asked() -> None:
    time = VirtualTime()
    happened: list[tuple[str, float]] = []
    time.at(5.0, lambda: happened.append(("later", time.now)))
    time.at(2.0, lambda: happened.append(("sooner", time.now)))
    assert time.step(1.0) is False
    assert time.now == 1.0
    assert time.step(10.0) is True
    assert time.now == 2.0
    assert time.step(5.0) is True
    assert happened == [("sooner", 2.0), ("later", 5.0)]
    assert time.step(9.0) is False
    assert time.now == 9.0


def test_things_of_one_instant_happen_in_the_order_in_which_they_were_scheduled() -> None:
    time = VirtualTime()
    order: list[int] = []
    for number in range(20):
        time.at(1.0, lambda number=number: order.append(number))  # type: ignore[misc]
    while time.step(1.0):
        pass
    assert order == list(range(20))


def test_what_should_have_happened_before_happens_now_and_the_clock_never_goes_back() -> None:
    time = VirtualTime()
    time.step(7.0)
    seen: list[float] = []
    time.at(3.0, lambda: seen.append(time.now))
    assert time.step(2.0) is False, "now is later than that"
    assert time.now == 7.0
    assert time.step(7.0) is True
    assert seen == [7.0]


def test_a_thing_may_schedule_another_for_the_same_instant() -> None:
    time = VirtualTime()
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        time.at(time.now, lambda: seen.append("second"))

    time.at(1.0, first)
    while time.step(1.0):
        pass
    assert seen == ["first", "second"]
    assert time.now == 1.0
