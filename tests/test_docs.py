"""The documents hold: their Python runs, their settings load, their commands parse, their links lead somewhere.

A fenced Python block says what is done with it in the comment above it: `<!-- test: run -->` runs it in a folder with
a task.py, after the blocks before it on the same page; `<!-- test: task NAME -->` loads it as a task file and trains
it; `<!-- test: parse -->` only compiles it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmq
from fedmq.aggregator.strategies import (
    STRATEGIES,
    fedasync,
    fedasync_delta,
    fedavg,
    fedbuff,
    median,
    multi_krum,
    trimmed_mean,
)
from fedmq.cli import COMMANDS
from fedmq.settings import load_settings
from tests.schemas import test_codecs

torch.set_num_threads(1)  # small models: more threads only wait for each other

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + sorted(
    ROOT.glob("docs/*.md")
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    marker: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def compiled(self) -> Any:
        return compile("\n" * self.line + self.text, str(self.page), "exec", dont_inherit=True)


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^(?:<!-- test: (.*?) -->\n)?```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            marker, language, body = match.groups(default="")
            line = text.count("\n", 0, match.start(2)) + 1
            yield Block(page, line, language, marker, body)


BLOCKS = list(blocks())
PYTHON = [block for block in BLOCKS if block.language == "python"]
TASKS = {block.marker.removeprefix("task "): block for block in PYTHON if block.marker.startswith("task ")}


def each(some: list[Block]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", some, ids=str)


def ran(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's running blocks leave behind."""
    monkeypatch.chdir(folder)
    Path("task.py").write_text(TASKS["classification"].text, encoding="utf-8")
    names: dict[str, Any] = {}
    for block in PYTHON:
        if block.page == page and block.marker == "run":
            exec(block.compiled(), names)
    return names


def test_every_python_block_says_what_it_is_good_for() -> None:
    assert PYTHON
    for block in PYTHON:
        assert re.fullmatch(r"run|parse|task \w+", block.marker), f"{block}: marker {block.marker!r}"


@each(PYTHON)
def test_python_compiles(block: Block) -> None:
    block.compiled()


@pytest.mark.parametrize(
    "page", sorted({block.page for block in PYTHON if block.marker == "run"}), ids=lambda p: p.name
)
def test_a_pages_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_on_a_page_learns(name: str, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASKS[name].text, encoding="utf-8")
    plan = fedmq.Plan(learning_rate=0.1)
    sandbox = fedmq.Sandbox(tmp_path / "task.py", clients=["alice", "bob"], seed=0, plan=plan)
    before = sandbox.evaluate()["loss"]
    sandbox.run(versions=30)
    assert sandbox.evaluate()["loss"] < 0.9 * before


def test_the_strategy_on_the_page_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ran(ROOT / "docs" / "extending.md", tmp_path, monkeypatch)
    monkeypatch.setitem(STRATEGIES, "shrinkage", names["shrinkage"])
    kept = 0
    for module in ("test_strategies", "test_mistakes_of_others", "test_replay"):
        for name, test in vars(importlib.import_module(f"tests.aggregator.{module}")).items():
            for mark in getattr(test, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "parametrize" and mark.args[1] is STRATEGIES:
                    test(**{mark.args[0]: "shrinkage"})
                    kept += 1
    assert kept >= 3


def test_the_codec_on_the_page_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ran(ROOT / "docs" / "extending.md", tmp_path, monkeypatch)
    monkeypatch.setitem(test_codecs.ERRORS, "float24", (2.0**-16, 2.0**-142))
    monkeypatch.setitem(test_codecs.LARGEST, "float24", names["LARGEST"])
    tests = [test for name, test in vars(test_codecs).items() if name.startswith("test_")]
    contract = [test for test in tests if "codec" in inspect.signature(test).parameters]
    assert len(contract) >= 4
    for test in contract:
        test(codec=names["CODEC"])


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("FedBuff, the default", fedbuff),
        ("FedAsync", fedasync),
        ("FedAsync", fedasync_delta),
        ("FedAvg", fedavg),
        ("Median", median),
        ("Trimmed mean", trimmed_mean),
        ("Multi-Krum", multi_krum),
    ],
)
def test_the_settings_of_a_strategy_are_on_its_page_with_their_defaults(heading: str, function: Any) -> None:
    page = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.MULTILINE))
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "staleness":
            value = parameter.default
            plain = "" if value is None else str(value).lower() if isinstance(value, bool | str) else f"{value:g}"
            assert shown[name].strip() == plain, name


@each([block for block in BLOCKS if block.language == "toml"])
def test_settings_on_a_page_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(block.text if "federation =" in block.text else f'federation = "f"\n{block.text}', encoding="utf-8")
    load_settings(file, environment={})


def console_lines() -> list[tuple[str, str]]:
    """Each `fedmq …` in a fenced block of commands, with where it stands."""
    found = []
    for block in BLOCKS:
        if block.language in ("console", "sh", "bash", "shell", ""):
            for line in block.text.replace("\\\n", " ").splitlines():
                match = re.match(r"(?:\$ )?(?:\S*/)?(?:python -m )?fedmq (.+)", line)
                found += [(str(block), match[1])] if match else []
    return found


def inline_commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        found += [(page.name, command) for command in re.findall(r"`fedmq\s+([^`]+)`", prose)]
    return found


def parser_of(command: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"fedmq.cli.{COMMANDS[command][0]}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    return parser


@pytest.mark.parametrize(("where", "line"), console_lines())
def test_a_command_line_on_a_page_parses(where: str, line: str) -> None:
    command, *arguments = shlex.split(re.split(r"[|;&>]", line)[0], comments=True)
    parser_of(command).parse_args(arguments)


@pytest.mark.parametrize(("where", "line"), inline_commands())
def test_a_command_in_a_sentence_exists_and_has_the_options_that_it_shows(where: str, line: str) -> None:
    command, *arguments = shlex.split(line)
    if command.startswith("-") or command in ("COMMAND", "…"):
        return
    options = {option for action in parser_of(command)._actions for option in action.option_strings}
    assert {argument.split("=")[0] for argument in arguments if argument.startswith("-")} <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name}: {target} does not exist"
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{page.name}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    folders = "schemas|transport|broker_config|tasks|aggregator|edge_client|tests|benchmarks|examples|docs|fedmq/cli"
    named = re.findall(rf"`((?:{folders})/[\w./-]+|fedmq/\w+\.py)`", page.read_text(encoding="utf-8"))
    to_come = {"aggregator/strategies/shrinkage.py", "schemas/codecs/float24.py"}  # by whoever follows the page
    for name in set(named) - to_come:
        assert (ROOT / name).exists(), f"{page.name}: {name} does not exist"
