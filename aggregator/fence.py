"""One live aggregator per run, and never one from an old copy: what the broker shows is read before an update is taken.

A broker does not say that it has sent all retained messages, and keeps an order only within a topic. So the aggregator
subscribes, and says a word of its own; when that is back, it marks each topic that it reads with an empty message that
is not retained; when a mark is back, what is retained there has come before it. Marks of an earlier connection, which a
durable session may bring, come before the word.
"""

from __future__ import annotations

from collections.abc import Callable

from fedmq.schemas.messages import AggregatorPresence, Head, Progress

__all__ = ["Fence"]

_FAREWELLS = 2  # of an unknown aggregator; see `presence`
_MOST_KNOWN = 1024  # others that are remembered: a broker may make up any number of them


class Fence:
    """What one aggregator knows of others.

    Args:
        incarnation: its own.
        replaces: runs whose head it may overwrite; None for any.
        predecessors: incarnations of aggregators that have worked in its folder: a broker may remember any of them.
        new: nothing of its run was ever shown, so that nothing is lost if it does not begin.

    Attributes:
        open: whether updates may be taken, in this connection.
        replaced: the run whose head it found, if that was another's and may be overwritten.
        shown: the head that it found in this connection.

    """

    def __init__(
        self,
        incarnation: str,
        replaces: frozenset[str] | None = frozenset(),
        predecessors: frozenset[str] = frozenset(),
        *,
        new: bool = False,
    ) -> None:
        self.open = False
        self.replaced: str | None = None
        self.shown: Head | None = None
        self._incarnation = incarnation
        self._replaces = replaces
        self._connections = 0
        self._passed = False  # in any connection
        self._doubt = False  # whether another, whose farewell came in this connection, is gone
        self._head: Head | None = None
        self._progress: Progress | None = None
        self._unreadable = ""
        self._new = new
        self._unverified = ""
        self._unmarked: set[str] = set()
        self._predecessors = set(predecessors)  # and those that were here before this one came
        self._farewells: dict[str, int] = {}

    def connected(self) -> None:
        """Look again: another may have been here."""
        self.open = False
        self._connections += 1
        self._doubt = False
        self._head = None
        self.shown = self._progress = None
        self._unreadable = self._unverified = ""
        self._unmarked = set()

    @property
    def word(self) -> str:
        """What is to be said in this connection."""
        return f"connection {self._connections}"

    def marks(self, *topics: str) -> None:
        """The own word is back; these topics are being marked."""
        self._unmarked = set(topics)

    def marked(self, topic: str) -> bool:
        """A mark is back; whether it was the last."""
        if topic not in self._unmarked:
            return False
        self._unmarked.remove(topic)
        return not self._unmarked

    def unreadable(self, why: str) -> None:
        """What the broker shows cannot be read: nobody knows what it would replace."""
        if not self.open:
            self._unreadable = why

    def unverified(self, topic: str) -> None:
        """What the broker shows there was signed by somebody whose key is not known.

        A run that has worked goes on beside it: a broker can show anything. But a new one may be here because the
        folder of the run that is shown was left behind, and would end that run for its devices.
        """
        if self._new and not self._passed:
            self._unverified = topic

    def head(self, head: Head) -> None:
        """What the broker shows as the newest model."""
        if not self.open:
            self._head = head

    def progress(self, progress: Progress) -> None:
        """What the broker shows as the progress: between two versions it tells more than the head."""
        if not self.open:
            self._progress = progress

    def presence(self, presence: AggregatorPresence) -> str | None:
        """Some aggregator's word; why this one has to end, None if it goes on.

        The older gives way, as the broker gave the connection to the newer. It takes the connection once more to learn
        why it lost it, and so brings about the newer one's last will: one farewell of an unknown one is no reason.
        """
        other = presence.incarnation
        if other == self._incarnation or presence.state == "starting":
            return None
        if self._connections == 1 and not self._passed:  # later it may be a twin that took the connection
            if len(self._predecessors) < _MOST_KNOWN:
                self._predecessors.add(other)
            return None
        if other in self._predecessors:
            return None
        self._farewells[other] = self._farewells.pop(other, 0) + 1
        if len(self._farewells) > _MOST_KNOWN:
            del self._farewells[next(iter(self._farewells))]
        self._doubt = not self.open
        if presence.state == "online" or self._farewells[other] >= _FAREWELLS:
            return "another aggregator serves this federation now; stop one of the two"
        return None

    def decide(
        self, run: str, version: int, digest_of: Callable[[str], str | None], accepted: int, verdicts: int
    ) -> str | None:
        """All marks are back; why this aggregator must not work here, None if it may.

        Args:
            run: this aggregator's.
            version: the newest that it has committed.
            digest_of: the digest of that version's weights in a codec; None if they are not at hand.
            accepted: updates that it has accepted, ever.
            verdicts: that it has given, ever: whoever was refused may have been told so.

        """
        if self._doubt:
            # It may be alive, and have lost the connection to this one: then it takes it back before the next word.
            self._doubt = False
            return None
        self._passed = True
        head, self._head = self._head, None
        self.shown = head
        progress, self._progress = self._progress, None
        other = next((shown for shown in (head, progress) if shown is not None and shown.run != run), None)
        if self._unreadable and self._replaces is not None:
            return (
                f"the broker shows a model of this federation that this FedMQ cannot read ({self._unreadable}); update"
                " FedMQ, or put this run in its place with --replace"
            )
        if self._unverified and self._replaces is not None:
            return (
                f"this folder holds a new run, and the broker shows on {self._unverified} what is signed with no key in"
                " aggregator_keys_file: most likely it is this federation's run, which the devices work for; put the"
                " folder of that run (runs/ of the aggregator before) in the place of this one, it goes on with new"
                " keys too, or put this new run in its place with --replace"
            )
        if other is not None:
            self.open = self._replaces is None or other.run in self._replaces
            if not self.open:
                return (
                    f"the broker shows another run of this federation ({other.run[:8]}…, version {other.version},"
                    f" {other.state}), this folder holds run {run[:8]}…; use that run's folder, or put this run in its"
                    " place with --replace"
                )
            self.replaced = other.run
        elif head is not None and head.version > version:
            return (
                f"the broker shows version {head.version} of this run, this folder ends at version {version}: it is an"
                " older copy; use the newest one, or go on from these weights as another run with --new-run"
            )
        elif head is not None and head.version == version and digest_of(head.codec) not in (None, head.digest):
            return (
                f"the broker shows other weights as version {version} of this run than this folder holds: a copy of it"
                " has worked elsewhere; use that one, or go on from these weights as another run with --new-run"
            )
        elif progress is not None and progress.run == run and progress.updates > accepted:
            return (
                f"the broker shows {progress.updates} accepted updates of this run, this folder holds {accepted}: it is"
                " an older copy; use the newest one, or go on from these weights as another run with --new-run"
            )
        elif progress is not None and progress.run == run and progress.verdicts > verdicts:
            return (
                f"the broker shows {progress.verdicts} verdicts on updates of this run, this folder holds {verdicts}:"
                " it is an older copy; use the newest one, or go on from these weights as another run with --new-run"
            )
        else:
            self.open = True
        return None
