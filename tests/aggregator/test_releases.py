"""Wishes to let a client out: none is done twice, none is taken for done before its commit, and none is lost."""

from __future__ import annotations

from pathlib import Path

from fedmq.aggregator.releases import Releases


def test_without_a_folder_nobody_asks() -> None:
    assert Releases(None).take() == []


def test_a_wish_is_taken_once_and_is_done_with_the_commit_that_begins_after_that(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    alice = releases.ask("alice")
    assert (releases.take(), releases.take()) == (["alice"], [])
    releases.committing()
    bob = releases.ask("bob")
    assert (releases.take(), releases.take()) == (["bob"], [])
    releases.committed()
    assert (alice.exists(), bob.exists()) == (False, True)
    again = releases.ask("alice")  # while the next commit is written
    releases.committing()
    releases.committed()
    assert (again.exists(), bob.exists()) == (True, False)
    assert releases.take() == ["alice"]


def test_what_a_failed_commit_had_of_it_is_wished_still(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    wishes = [releases.ask("alice")]
    releases.take()
    releases.committing()
    wishes.append(releases.ask("bob"))
    releases.take()
    releases.forget()
    releases.committing()
    releases.committed()
    assert all(wish.exists() for wish in wishes)
    assert sorted(releases.take()) == ["alice", "bob"]
