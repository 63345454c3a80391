"""Writes the table in SECURITY.md from a run on a real Mosquitto: `python -m tests.security_page`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.security.access import measured, table
from tests.security.ground import ground

PAGE = Path(__file__).parents[1] / "SECURITY.md"
_BETWEEN = re.compile(r"(<!-- access: begin -->\n)(.*?)(<!-- access: end -->)", re.DOTALL)


def written_table() -> str:
    """The table that is on the page."""
    found = _BETWEEN.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"{PAGE.name} has no place for the table"
    return found[2]


def write(new: str) -> None:
    """Put this table on the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_BETWEEN.sub(lambda place: place[1] + new + place[3], text), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder)) as at:
        write(table(measured(at)))
