"""Text from outside, as people see it."""

from __future__ import annotations

import unicodedata

import pytest

from fedmq.printable import in_one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("K = 2, größer, 日本", "K = 2, größer, 日本"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b]0;owned\x07\x9b2K\x7f", r"\x1b]0;owned\x07\x9b2K\x7f"),
        ("\u202egnp.exe\u2066 \u200b\u2028\x85", r"\u202egnp.exe\u2066 \u200b\u2028\x85"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_nothing_is_left_that_moves_a_cursor_or_turns_the_writing() -> None:
    shown = printable("".join(map(chr, range(0x110000))))
    assert {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()
    assert len(shown.splitlines()) == 1


def test_a_sentence_of_several_lines_is_one() -> None:
    assert in_one_line("size mismatch:\n    got [3],\x85  expected [4]\x1b[2J\n") == (
        r"size mismatch: got [3], expected [4]\x1b[2J"
    )
