"""What reaches standard error of a process that has the same trouble again and again."""

from __future__ import annotations

import logging

import pytest

from fedmq.logs import log_to_stderr


def said(name: str, level: int, text: str, at: float) -> None:
    """A line of this logger, at this time."""
    logger = logging.getLogger(name)
    record = logger.makeRecord(name, level, __file__, 1, text, (), None)
    record.created = at
    logger.handle(record)


def test_the_same_trouble_is_said_once_a_minute_and_at_once_when_it_comes_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_stderr()
    away = "disconnected reason='no broker answers'"
    for second in range(130):
        said("fedmq.aggregator", logging.WARNING, away, 1000.0 + second)
        said("fedmq.client", logging.INFO, "trained", 1000.0 + second)
    said("fedmq.aggregator", logging.INFO, "connected run=a", 1130.0)
    said("fedmq.aggregator", logging.WARNING, away, 1131.0)
    said("fedmq.aggregator", logging.WARNING, "something else", 1132.0)
    said("fedmq.aggregator", logging.WARNING, away, 1133.0)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines() if "trained" not in line]
    warning = f"WARNING fedmq.aggregator {away}"
    assert lines == [
        warning,
        f"{warning} (again, 60 times since it was last said)",
        f"{warning} (again, 60 times since it was last said)",
        "INFO    fedmq.aggregator connected run=a",
        warning,
        "WARNING fedmq.aggregator something else",
    ]


def test_two_troubles_in_turn_are_each_said_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    for second in range(70):
        said("fedmq.client", logging.ERROR, f"refused topic={second % 2}", 1000.0 + second)
    for number in range(100):
        said("fedmq.client", logging.WARNING, f"rejected {number}", 1100.0)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    again = "(again, 30 times since it was last said)"
    assert lines[:4] == [
        *(f"ERROR   fedmq.client refused topic={topic}" for topic in (0, 1)),
        *(f"ERROR   fedmq.client refused topic={topic} {again}" for topic in (0, 1)),
    ]
    assert len(lines) == 104


def test_what_a_stranger_named_is_no_line_of_its_own_and_nothing_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_stderr()
    logger = logging.getLogger("fedmq.signing")
    forged = "2026-11-26T00:00:00Z INFO    fedmq.aggregator finished"
    logger.error("refused topic=%s times=%d", f"fedmq/f/model\n{forged}\x1b[2J", 1)
    try:
        raise ValueError(f"cannot read x\n{forged}\r\x1b[1A{forged}")
    except ValueError:
        logger.exception("judging failed client=%s", "a\u202eb")
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith(f" ERROR   fedmq.signing refused topic=fedmq/f/model\\n{forged}\\x1b[2J times=1")
    assert lines[1].endswith(r" ERROR   fedmq.signing judging failed client=a\u202eb")
    # A traceback has lines, but none of them looks like a record.
    assert lines[2] == "Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in lines[3:])
