"""The rules of the house: which folder may know which, what the cores may touch, and what a wheel holds."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("schemas", "transport", "broker_config", "tasks", "aggregator", "edge_client")
TREE = (*FOLDERS, "fedmq", "tests", "benchmarks", "examples")

# What a folder may import of ours, by the start of the name, and of others; None for anything.
ALLOWED: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "schemas": (("fedmq.schemas",), ("numpy", "msgpack", "pydantic", "backports.zstd", "compression.zstd")),
    "transport": (("fedmq.schemas.errors", "fedmq.schemas.parts", "fedmq.transport"), ("paho", "cryptography")),
    # The topics, because access rules are about them: their names stand in one place.
    "broker_config": (
        ("fedmq.schemas.errors", "fedmq.schemas.refusals", "fedmq.schemas.topics", "fedmq.broker_config"),
        ("pydantic", "iotcore", "cryptography"),
    ),
    "tasks": (("fedmq.schemas", "fedmq.tasks"), None),
    "aggregator": (("fedmq.schemas", "fedmq.tasks", "fedmq.aggregator"), None),
    "edge_client": (("fedmq.schemas", "fedmq.tasks", "fedmq.edge_client"), None),
}
MAY_USE_THE_TRANSPORT = {
    "aggregator/service.py",
    "aggregator/gate.py",
    "aggregator/left_parts.py",
    "aggregator/publisher.py",
    "aggregator/reception.py",
    "aggregator/verdicts.py",
    "aggregator/snapshots.py",
    "aggregator/transfer.py",
    "aggregator/room.py",
    "aggregator/transfers.py",
    "edge_client/download.py",
    "edge_client/fetch.py",
    "edge_client/service.py",
    "edge_client/shown.py",
}
MAY_IMPORT_TORCH_AT_ONCE = {
    *("tasks/bridge.py", "tasks/datasets.py", "tasks/evaluation.py", "edge_client/trainer.py"),
    *("fedmq/demo/central.py", "fedmq/demo/watch_task.py"),  # a training loop and a task, loaded on use
}
MAY_USE_CRYPTOGRAPHY = {
    "fedmq/keys.py",
    "transport/certificate.py",
    *(f"broker_config/provision/{name}.py" for name in ("certificates", "revocation", "signing_keys")),
}
MAY_UNPICKLE = {"fedmq/demo/watch.py"}  # the one data set of the demo, after its digest was checked

CORES = (
    "aggregator/core.py",
    "aggregator/admission.py",
    "aggregator/allowance.py",
    "aggregator/attention.py",
    "aggregator/buckets.py",
    "aggregator/buffer.py",
    "aggregator/clipping.py",
    "aggregator/cohort.py",
    "aggregator/folding.py",
    "aggregator/goal.py",
    "aggregator/ledger.py",
    "aggregator/quarantine.py",
    "aggregator/scores.py",
    "aggregator/sparing.py",
    "aggregator/staleness.py",
    "aggregator/state.py",
    "aggregator/strategies/*.py",
    "aggregator/tempo.py",
    "edge_client/actions.py",
    "edge_client/budget.py",
    "edge_client/core.py",
    "edge_client/offers.py",
    "edge_client/upload.py",
    "schemas/**/*.py",
)
MAY_BE_GIVEN_RANDOMNESS = {"edge_client/core.py", "edge_client/offers.py"}
NOT_IN_A_CORE = {
    "asyncio", "datetime", "logging", "multiprocessing", "os", "pathlib", "secrets", "select", "selectors", "signal",
    "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid", "paho", "torch",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import statement's module, and whether it runs when the file is imported."""

    file: str
    line: int
    module: str
    at_once: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@cache
def source(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


@cache
def files(*folders: str) -> tuple[str, ...]:
    """Python files below these folders, each seen once: not through the links."""
    found = []
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            file = path.relative_to(ROOT)
            if not any((ROOT / parent).is_symlink() for parent in file.parents) and "__pycache__" not in file.parts:
                found.append(file.as_posix())
    return tuple(sorted(found))


def imports(file: str) -> Iterator[Import]:
    def visit(node: ast.AST, at_once: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            # `from fedmq.aggregator import service` imports that module too.
            yield from (Import(file, node.lineno, f"{node.module}.{alias.name}", at_once) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ast.iter_child_nodes(node):
                yield from visit(part, False)
        else:
            for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for part in ast.iter_child_nodes(node):
                yield from visit(part, at_once and not for_types)

    return visit(source(file), True)


def within(module: str, *packages: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def breaches(where: tuple[str, ...], wrong: Callable[[Import], bool]) -> list[str]:
    return [str(one) for file in files(*where) for one in imports(file) if wrong(one)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_reached_through_a_committed_relative_link(folder: str) -> None:
    link = ROOT / "fedmq" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../{folder}"
    if (ROOT / ".git").exists():
        said = subprocess.run(
            ["git", "ls-files", "--stage", link], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert said.stdout.startswith("120000 ")


def test_nothing_else_in_the_face_is_a_link() -> None:
    assert {path.name for path in (ROOT / "fedmq").iterdir() if path.is_symlink()} == set(FOLDERS)


def test_no_folder_is_imported_by_its_global_name() -> None:
    assert breaches(TREE, lambda one: within(one.module, *FOLDERS)) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_knows_only_the_folders_that_it_may(folder: str) -> None:
    ours, _ = ALLOWED[folder]

    def wrong(one: Import) -> bool:
        allowed = (*ours, "fedmq.transport") if one.file in MAY_USE_THE_TRANSPORT else ours
        return within(one.module, "fedmq") and not within(one.module, *allowed)

    assert breaches((folder,), wrong) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_knows_only_the_libraries_that_it_may(folder: str) -> None:
    _, others = ALLOWED[folder]
    if others is None:
        return

    def wrong(one: Import) -> bool:
        return not within(one.module, "fedmq", *others, *sys.stdlib_module_names)

    assert breaches((folder,), wrong) == []


def test_torch_is_imported_on_use_only() -> None:
    def wrong(one: Import) -> bool:
        return within(one.module, "torch") and one.at_once and one.file not in MAY_IMPORT_TORCH_AT_ONCE

    assert breaches((*FOLDERS, "fedmq"), wrong) == []


def test_the_embedded_broker_is_imported_on_use_only() -> None:
    assert breaches((*FOLDERS, "fedmq"), lambda one: within(one.module, "iotcore") and one.at_once) == []


def test_cryptography_is_for_provisioning_signatures_and_dates_of_certificates_only() -> None:
    def wrong(one: Import) -> bool:
        return within(one.module, "cryptography") and one.file not in MAY_USE_CRYPTOGRAPHY

    assert breaches((*FOLDERS, "fedmq"), wrong) == []
    names = "fedmq.cli.provision, fedmq.cli.broker, fedmq.broker_config.secure, fedmq.device, fedmq.server, fedmq.watch"
    assert "cryptography" not in imported_by(names)


def test_the_cores_have_no_clock_thread_socket_disk_log_or_randomness() -> None:
    cores = [path.relative_to(ROOT).as_posix() for pattern in CORES for path in ROOT.glob(pattern)]
    assert all(any(ROOT.glob(pattern)) for pattern in CORES)
    for file in cores:
        used = {one.module for one in imports(file)}
        assert {module.split(".")[0] for module in used} & NOT_IN_A_CORE == set(), file
        randomness = {module for module in used if within(module, "random")}
        assert randomness <= ({"random"} if file in MAY_BE_GIVEN_RANDOMNESS else set()), file
        for node in ast.walk(source(file)):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "print", "input")), file
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node)
                # The device's core is given a generator; that is all that it may know of randomness.
                assert not name.startswith(("np.random", "numpy.random")), f"{file}:{node.lineno}"
                assert not name.startswith("random.") or name == "random.Random", f"{file}:{node.lineno}"


def test_nothing_is_pickled_and_only_the_demos_data_is_unpickled() -> None:
    def wrong(one: Import) -> bool:
        return within(one.module, "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")

    assert breaches((*FOLDERS, "fedmq"), wrong) == []
    for file in files(*FOLDERS, "fedmq"):
        for node in ast.walk(source(file)):
            if not isinstance(node, ast.Call):
                continue
            assert ast.unparse(node.func) not in ("torch.load", "torch.save", "eval", "exec"), f"{file}:{node.lineno}"
            unpickles = any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords)
            assert not unpickles or file in MAY_UNPICKLE, f"{file}:{node.lineno}"


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "base", "manager", "handler", "misc"}
    assert [file for file in files(*TREE) if Path(file).stem in empty] == []


def imported_by(modules: str) -> set[str]:
    """What is in `sys.modules` after a fresh interpreter imported these."""
    script = f"import sys, {modules}; print(' '.join(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(said.stdout.split())


def test_neither_service_nor_what_it_needs_imports_torch() -> None:
    services = (
        "fedmq.edge_client.service, fedmq.edge_client.core, fedmq.edge_client.outbox, fedmq.edge_client.training,"
        "fedmq.aggregator.service, fedmq.tasks.loader"
    )
    assert "torch" not in imported_by(services)


def test_import_fedmq_is_cheap() -> None:
    assert {"numpy", "torch", "pydantic", "paho"} & imported_by("fedmq") == set()


TASK = """
import numpy as np
import torch

import schemas  # the task's own, beside it
from fedmq import Data


def build_model():
    return torch.nn.Linear(schemas.FEATURES, schemas.CLASSES)


def load_data(client_id):
    inputs = np.eye(schemas.FEATURES, dtype=np.float32)
    return Data(train=(inputs, np.arange(schemas.FEATURES) % schemas.CLASSES))
"""

RUN = """
import sys

import torch

torch.set_num_threads(1)
import fedmq
import fedmq.schemas

sandbox = fedmq.Sandbox("task.py", ["alice", "bob"])
sandbox.run(versions=2)
assert sandbox.updates >= 2
print(fedmq.__file__, fedmq.schemas.__file__, sys.modules["schemas"].__file__, sep="\\n")
"""


def test_a_wheel_holds_real_files_and_runs_a_task_that_has_a_schemas_of_its_own(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("no setuptools to build a wheel with")
    tree, target, task = tmp_path / "tree", tmp_path / "installed", tmp_path / "task"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in (*FOLDERS, "fedmq"):  # a copy, because a build leaves files in the tree that it builds
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    _python("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, tree)

    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"fedmq", wheel.name.rsplit("-py3")[0] + ".dist-info"}
    packed = {name for name in names if name.endswith(".py")}
    assert packed == {file if file.startswith("fedmq/") else f"fedmq/{file}" for file in files(*FOLDERS, "fedmq")}
    assert {"fedmq/py.typed", "fedmq/broker_config/mosquitto.conf"} <= set(names)

    _python("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, wheel)
    assert not any(path.is_symlink() for path in target.rglob("*"))
    task.mkdir()
    (task / "schemas.py").write_text("FEATURES, CLASSES = 8, 2\n")
    (task / "task.py").write_text(TASK)
    (task / "run.py").write_text(RUN)
    loaded = _python("run.py", cwd=task, env={**os.environ, "PYTHONPATH": str(target)}).splitlines()
    assert loaded == [
        str(target / "fedmq/__init__.py"), str(target / "fedmq/schemas/__init__.py"), str(task / "schemas.py")
    ]  # fmt: skip


def _python(*arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What this interpreter prints when it is run with these arguments."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
