"""Text from outside, made harmless for whoever reads it: on a terminal, in a log, in a picture."""

from __future__ import annotations

__all__ = ["in_one_line", "printable"]


def printable(text: str) -> str:
    r"""The text with every character that cannot be seen as its escape, such as `\x1b`; it has one line then.

    So it can neither begin a line that somebody else seems to have written, nor tell a terminal what to do, nor turn
    the direction of writing. What cannot be seen is what Unicode calls controls, format characters (the marks of
    direction among them), separators but for the space, and what is not assigned.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def in_one_line(text: str) -> str:
    """A sentence of somebody else's, printable, with one space for whatever stood between its words."""
    return printable(" ".join(text.split()))
