"""Which starts of an author are old: with keys that change, a thief of keys, and a broker that repeats anything."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.newest import Newest

GREATEST = (1 << 63) - 1
_ALONE = ("starts again", "takes a new key", "trusts the next", "restarts", "is stolen", "is told")
_STEPS = st.one_of(
    st.tuples(st.sampled_from(_ALONE), st.just(0)),
    st.tuples(st.just("is told"), st.just(0)),
    st.tuples(st.just("is shown"), st.integers(0, 1 << 16)),
    st.tuples(st.just("is lied to"), st.sampled_from([0, 3, 9, GREATEST])),
)


class Story:
    """An author that goes from key to key, each of its starts of a greater session; a thief; and a device.

    The device trusts two keys that follow one another, as provisioning has it, and gets the next ones late or early.
    """

    def __init__(self) -> None:
        self.session, self.key = 1, 0
        self.stolen = -1  # the last key that the thief has
        self.trusted = 1  # the later of the two
        self.said = [(1, 0)]
        self.believed = 0
        self._kept: dict[str, int] = {}
        self.device = self._device()

    def step(self, what: str, number: int) -> None:
        if what == "starts again":
            self.session += 1
            self.said.append((self.session, self.key))
        elif what == "takes a new key" and self.key <= self.trusted:
            self.key += 1
            self.said.append((self.session, self.key))
        elif what == "trusts the next" and self.trusted <= self.key:
            self.trusted += 1
        elif what == "restarts":
            self.device = self._device()
        elif what == "is stolen":
            self.stolen = self.key
        elif what == "is told":
            self._hears(*self.said[-1])
        elif what == "is shown":
            self._hears(*self.said[number % len(self.said)])
        elif what == "is lied to" and self.stolen in self._counts():
            self.device.take(number, str(self.stolen))

    def _hears(self, session: int, key: int) -> None:
        if key not in self._counts():
            return
        taken = self.device.take(session, str(key))
        if taken:
            assert session >= self.believed, "something old came back"
            self.believed = session
        if (session, key) == self.said[-1] and self.stolen not in self._counts():
            assert taken, "the author is not heard, and nobody else has a key that counts"

    def _counts(self) -> tuple[int, int]:
        return (self.trusted - 1, self.trusted)

    def _device(self) -> Newest:
        def keep(session: int, key: str) -> None:
            self._kept[key] = session

        return Newest(lambda: [str(key) for key in self._counts()], dict(self._kept), keep)


@settings(max_examples=200, deadline=None)
@given(st.lists(_STEPS, min_size=40, max_size=80))
def test_nothing_old_comes_back_and_a_thief_makes_nobody_deaf_for_longer_than_its_key_counts(
    steps: list[tuple[str, int]],
) -> None:
    story = Story()
    for what, number in steps:
        story.step(what, number)


def test_what_a_key_made_old_is_old_under_every_key_that_counts_beside_it() -> None:
    newest = Newest(lambda: ("old", "new"))
    assert newest.take(5, "new")
    assert not newest.take(4, "old")
    assert newest.take(5, "old")
    assert newest.session == 5


def test_the_session_of_a_key_goes_with_it_and_comes_back_with_it() -> None:
    trusted = ["stolen", "new"]
    newest = Newest(lambda: trusted)
    assert newest.take(7, "new")
    assert newest.take(GREATEST, "stolen")
    assert not newest.take(8, "new")
    trusted.remove("stolen")
    assert not newest.take(6, "new")
    assert newest.take(8, "new")
    trusted.append("stolen")
    assert newest.session == GREATEST


def test_a_session_is_kept_before_it_counts_once_for_each_key() -> None:
    kept: list[tuple[int, str]] = []
    newest = Newest(lambda: ("a", "b"), {"a": 3}, lambda session, key: kept.append((session, key)))
    assert [newest.take(session, key) for session, key in ((2, "a"), (3, "a"), (3, "b"), (3, "b"), (4, "a"))] == [
        False, True, True, True, True,
    ]  # fmt: skip
    assert kept == [(3, "b"), (4, "a")]
