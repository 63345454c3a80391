from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fedmq.tasks import faults
from fedmq.tasks.faults import doing, place_in, what_was_done

CALLS = "def call(function): return function()\n"


def raised_through(*files: Path) -> Exception:
    """What comes of a call through a function of each of these files, the last of which raises."""

    def fails() -> None:
        raise KeyError(4)

    function = fails
    for number, file in enumerate(reversed(files)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CALLS)
        spec = importlib.util.spec_from_file_location(f"file_{number}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = (lambda call, inner: lambda: call(inner))(module.call, function)
    with pytest.raises(KeyError) as caught:
        function()
    return caught.value


def test_the_place_is_the_innermost_line_in_the_tasks_folder_or_below_it_and_of_no_others_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, helper = tmp_path / "tasks" / "task.py", tmp_path / "tasks" / "parts" / "helper.py"
    installed = tmp_path / "tasks" / ".venv" / "lib" / "site-packages" / "torch.py"
    ours = tmp_path / "tasks" / "fedmq" / "trainer.py"
    elsewhere = tmp_path / "other.py"
    monkeypatch.setattr(faults, "_OTHERS", (ours.parent, tmp_path))
    assert place_in(task.parent, raised_through(ours, task, ours, installed, elsewhere)) == f" ({task}:1)"
    assert place_in(task.parent, raised_through(task, helper, installed)) == f" ({helper}:1)"
    assert place_in(task.parent, raised_through(ours, installed, elsewhere)) == ""


def test_what_was_done_is_the_innermost_and_shows_in_a_traceback() -> None:
    with pytest.raises(KeyError) as caught, doing("training"), doing("evaluating"):
        raise KeyError(4)
    assert what_was_done(caught.value) == "while evaluating"
    assert caught.value.__notes__ == ["while evaluating"]
    other = KeyError(4)
    other.add_note("a note of somebody else")
    assert what_was_done(other) == ""
