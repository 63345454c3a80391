"""The protocol page: complete, true, and enough for a client that shares no line with FedMQ."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from safetensors.numpy import save_file

from fedmq.broker_config.child import start_child
from fedmq.broker_config.start import RunningBroker
from fedmq.schemas.plan import Plan
from tests.test_vectors import KINDS, page_read, read
from tests.vectors import page_codecs

CLIENT = Path(__file__).parent / "vectors" / "client.py"
PAGE = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")
PATIENCE = 60.0


def test_every_field_and_every_word_of_every_message_is_on_the_page() -> None:
    words = set().union(*(_words(model.model_json_schema()) for model in KINDS.values()))
    assert {"outbox_id", "retrain_after", "unknown_base", "quarantine"} < words
    assert words - set(re.findall(r"`([a-z_0-9-]+)`", PAGE)) == set()


def test_the_plans_table_has_every_key_with_its_default() -> None:
    section = PAGE.partition("### The plan")[2].partition("###")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]+\|([^|]*)\|", section, re.MULTILINE))
    assert set(rows) == set(Plan.model_fields)
    for key, value in Plan().model_dump(mode="json").items():
        shown = rows[key].strip().strip("`")
        assert shown == (
            "" if value is None else value if isinstance(value, str) else json.dumps(value).removesuffix(".0")
        )


def test_every_limit_of_every_message_is_on_the_page() -> None:
    section = PAGE.partition("### The plan")[2].partition("###")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]+)\|", section, re.MULTILINE))
    for key, schema in Plan.model_json_schema()["properties"].items():
        for limit in _limits(schema):
            assert re.search(rf"(?<![\d,.]){limit}(?![\d,.]*\d)", rows[key]), f"{key}: {limit}"
    for kind, model in KINDS.items():
        for limit in _limits(model.model_json_schema()):
            assert limit in PAGE, f"{kind}: {limit}"


def test_the_topics_on_the_page_are_those_of_the_vectors() -> None:
    shown = re.findall(r"^\| `(fedmq/\{federation\}[^`]*)`", PAGE, re.MULTILINE)
    used = {row["topic"] for row in read("messages.json")}
    assert {topic.format(federation="orchard", client_id="dev-7", slot=0, part=0) for topic in shown} == used


def test_the_bytes_on_the_page_are_the_vectors() -> None:
    shown = re.findall(r"^```hex\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    known = {row["payload"] for row in read("messages.json")} | {row["canonical"] for row in read("layouts.json")}
    assert shown
    for block in shown:
        assert "".join(block.split()) in known


def test_the_messages_on_the_page_are_the_vectors() -> None:
    shown = re.findall(r"^```json\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    known = [row["message"] for row in read("messages.json")]
    assert shown
    for block in shown:
        assert json.loads(block) in known


def test_the_independent_client_uses_nothing_of_fedmq() -> None:
    tree = ast.parse(CLIENT.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"msgpack", "paho"}


@pytest.mark.broker
@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_a_client_written_from_the_page_takes_part(
    codec: str, mosquitto: RunningBroker, federation: str, tmp_path: Path
) -> None:
    versions, start = 4, [0.0, 1.0, -6.0]
    save_file(
        {"w": np.array(start, np.float32), "norm.running_var": np.array([1.0], np.float32)},
        tmp_path / "weights.safetensors",
    )
    (tmp_path / "federation.toml").write_text(f"""
        federation = "{federation}"
        broker.url = "{mosquitto.url}"
        plan = {{ learning_rate = 0.5, codec = "{codec}", retrain_after = 0.2 }}
        [aggregator]
        folder = "run"
        init = "weights.safetensors"
        buffer_size = 1
        publish_interval = 0.0
        snapshot_codec = "{codec}"
        server_learning_rate = 1.0
        goal.versions = {versions}
        """)
    server = start_child(
        [sys.executable, "-m", "fedmq", "aggregator", "--config", str(tmp_path / "federation.toml")],
        tmp_path / "aggregator.log",
    )
    try:
        done = subprocess.run(
            [sys.executable, str(CLIENT), str(mosquitto.ports["5"]), federation, "dev-7"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr + (tmp_path / "aggregator.log").read_text()
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.wait()
    verdicts = done.stdout.splitlines()
    # The last verdict may come behind the news that the run is finished.
    assert verdicts in (["accepted None 0"] * versions, ["accepted None 0"] * (versions - 1))
    head, body = retained_head(mosquitto.ports["5"], federation)
    assert (head["state"], head["version"]) == ("finished", versions)
    # Each version halves what is missing: the client's learning rate is 1/2, and so is the statistics' rate.
    expected = [2 - (2 - x) / 2**versions for x in start] + [3 - (3 - 1.0) / 2**versions]
    assert page_codecs.decode(codec, body, 3, 1) == pytest.approx(expected, abs=1e-3)


def retained_head(port: int, federation: str) -> tuple[Any, bytes]:
    """The head as any MQTT client gets it."""
    heard: list[bytes] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, message: heard.append(bytes(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe(f"fedmq/{federation}/model")
    deadline = time.monotonic() + PATIENCE
    while not heard and time.monotonic() < deadline:
        time.sleep(0.02)
    client.disconnect()
    client.loop_stop()
    return page_read(heard[0])


def _words(schema: Any) -> set[str]:
    """Every field and every fixed text that a schema has, wherever it is."""
    if isinstance(schema, list):
        return set().union(*map(_words, schema))
    if not isinstance(schema, dict):
        return set()
    fixed = [*schema.get("enum", []), schema.get("const")]
    own = set(schema.get("properties", {})) | {text for text in fixed if isinstance(text, str)}
    return own.union(*map(_words, schema.values()))


def _limits(schema: Any) -> set[str]:
    """Every bound that a schema has, as the page writes numbers."""
    if isinstance(schema, list):
        return set().union(*map(_limits, schema))
    if not isinstance(schema, dict):
        return set()
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "maxItems",
              "maxProperties")  # fmt: skip
    own = {f"{schema[name]:,}".removesuffix(".0") for name in bounds if isinstance(schema.get(name), int | float)}
    return own.union(*map(_limits, schema.values())) - {f"{(1 << 63) - 1:,}"}
