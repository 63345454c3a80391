from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmq.schemas.errors import ConfigError
from fedmq.tasks.loader import load_task

WHOLE = "def build_model(): return 1\ndef load_data(client_id): return client_id\n"


@pytest.fixture(autouse=True)
def python_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A task's folder goes on sys.path, and its siblings are modules for as long as the process lives."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def task_file(folder: Path, text: str, name: str = "task.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_task_is_its_functions_and_none_where_it_has_none(tmp_path: Path) -> None:
    task = load_task(task_file(tmp_path, WHOLE + "def loss(outputs, targets): return 0\nother = 7\n"))
    assert task.build_model is not None
    assert task.build_model() == 1
    assert task.load_data is not None
    assert task.load_data("dev") == "dev"  # type: ignore[comparison-overlap]
    assert task.loss is not None
    assert (task.evaluate, task.train, task.load_test_data, task.train_numpy) == (None, None, None, None)
    assert task.path == tmp_path / "task.py"


def test_its_version_is_the_digest_of_the_file_unless_it_says_one(tmp_path: Path) -> None:
    assert load_task(task_file(tmp_path, WHOLE)).version == hashlib.sha256(WHOLE.encode()).hexdigest()[:16]
    assert load_task(task_file(tmp_path, WHOLE + "task_version = '2.1'\n")).version == "2.1"
    with pytest.raises(ConfigError, match="task_version is 7, expected a text"):
        load_task(task_file(tmp_path, WHOLE + "task_version = 7\n"))


def test_a_missing_file_is_an_error_that_says_what_a_task_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.py: no such file; .* build_model\(\) and load_data\(client_id\)"):
        load_task(tmp_path / "nothing.py")
    with pytest.raises(ConfigError, match=r": it is a folder; a task is a Python file with build_model\(\)"):
        load_task(tmp_path)


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = task_file(tmp_path, "x = 1\ndef build_model(:\n")
    with pytest.raises(ConfigError, match=rf"SyntaxError: .*\({path}:2\)$"):
        load_task(path)


def test_an_error_while_it_runs_names_file_and_line_also_in_a_sibling(tmp_path: Path) -> None:
    path = task_file(tmp_path, "import sibling_that_fails\n")
    sibling = task_file(tmp_path, "\n\n1 / 0\n", "sibling_that_fails.py")
    with pytest.raises(ConfigError, match=rf"ZeroDivisionError: division by zero \({sibling}:3\)$") as caught:
        load_task(path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ConfigError, match=rf"ModuleNotFoundError: .*no_such_module.* \({path}:1\)$"):
        load_task(task_file(tmp_path, "import no_such_module\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def load_data(client_id): ...", r"it has no build_model; define build_model\(\)"),
        ("def build_model(): ...", r"it has no load_data; define load_data\(client_id\)"),
        (WHOLE + "loss = 3", "loss is a int, expected a function"),
    ],
)
def test_what_a_task_lacks_is_named_with_an_example(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_task(task_file(tmp_path, text))


def test_a_task_for_numpy_needs_no_model(tmp_path: Path) -> None:
    task = load_task(task_file(tmp_path, "def train_numpy(weights, plan): ..."))
    assert task.train_numpy is not None
    assert task.build_model is None


def test_its_siblings_import_whatever_they_are_called(tmp_path: Path) -> None:
    task_file(tmp_path, "answer = 42\n", "schemas.py")
    task_file(tmp_path, "answer = 43\n", "transport.py")
    text = "import schemas, transport\nfrom fedmq.schemas.plan import Plan\n" + WHOLE
    text += "def loss(outputs, targets): return schemas.answer + transport.answer\n"
    task = load_task(task_file(tmp_path, text))
    assert task.loss is not None
    assert task.loss(None, None) == 85


def test_a_task_called_like_a_library_replaces_it_for_nobody(tmp_path: Path) -> None:
    import json

    load_task(task_file(tmp_path, WHOLE, "json.py"))
    assert sys.modules["json"] is json


def test_classes_of_a_task_can_be_dataclasses_and_are_found_by_their_module(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Row:\n    x: int = 1\n"
    )
    task = load_task(task_file(tmp_path, text + "def build_model(): return Row()\ndef load_data(client_id): ...\n"))
    assert task.build_model is not None
    row = task.build_model()
    assert getattr(sys.modules[type(row).__module__], "Row") is type(row)  # noqa: B009 (mypy does not know it)


def test_a_file_that_fails_leaves_no_half_module(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        load_task(task_file(tmp_path, "1 / 0"))
    assert not [name for name in set(sys.modules) - before if name.startswith("fedmq_task")]


def test_a_file_that_is_not_python_is_an_error(tmp_path: Path) -> None:
    path = task_file(tmp_path, WHOLE, "task.txt")
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    assert str(caught.value) == (
        f"task {path}: its name does not end in .py; a task is a Python file with build_model() and"
        " load_data(client_id)"
    )
