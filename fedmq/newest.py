"""The newest start of an author that was heard: what is from before it is old."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

__all__ = ["Newest"]


class Newest:
    """The greatest session that was heard of one author, remembered for each of its keys apart.

    A session makes others old only as long as its key is trusted. A thief's, which may be the greatest that there is,
    so goes with the key that was stolen. Nothing old comes back by that: an author takes a new key and never goes back
    to one before, so what a later key has signed is of no earlier session than what was heard with the ones before it.
    And as long as a key is trusted, what it made old stays so, whichever key has signed that.

    Args:
        trusted: the public keys that count now.
        heard: the sessions that were heard before, by key.
        keep: has one remembered, with its key, before anything of it is believed.

    """

    def __init__(
        self,
        trusted: Callable[[], Collection[str]],
        heard: Mapping[str, int] | None = None,
        keep: Callable[[int, str], None] = lambda session, key: None,
    ) -> None:
        self._trusted = trusted
        self._heard = dict(heard or {})  # also of keys that count no more: one that is put back brings its session
        self._keep = keep

    @property
    def session(self) -> int:
        """What is from before this one is old; 0 if nothing was heard."""
        return max((self._heard.get(key, 0) for key in self._trusted()), default=0)

    def take(self, session: int, key: str) -> bool:
        """Hear something of this session, signed with this key; whether it is no old one."""
        if session < self.session:
            return False
        if session > self._heard.get(key, 0):
            self._keep(session, key)
            self._heard[key] = session
        return True
