"""The command, mostly as a process of its own; what its commands do in a federation at work is in tests/system."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fedmq.aggregator.export import read_run
from fedmq.broker_config.start import RunningBroker
from fedmq.cli import COMMANDS, check, main
from fedmq.settings import load_settings
from tests.brokers import RunMosquitto
from tests.system.processes import PATIENCE, TASK, until

TORCH_TASK = """
import torch
import fedmq

def build_model():
    return torch.nn.Linear(3, 1)

def load_data(client_id):
    inputs = torch.arange(60.0).reshape(20, 3) / 60
    targets = inputs.sum(1, keepdim=True)
    return fedmq.Data(train=(inputs, targets), test=(inputs, targets))

loss = torch.nn.MSELoss()
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In an empty folder; afterwards logging is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    logger = logging.getLogger("fedmq")
    handlers, propagate, level = logger.handlers, logger.propagate, logger.level
    path = list(sys.path)
    yield
    sys.path[:] = path  # a task's folder comes first on it
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@contextmanager
def fedmq(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process that is gone afterwards. It minds Ctrl-C even if the tests run in the background."""
    with subprocess.Popen(
        [sys.executable, "-m", "fedmq", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"fedmq.cli.{COMMANDS[name][0]}")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  {module.EXAMPLE}\n" in capsys.readouterr().out
    program, command, *arguments = shlex.split(module.EXAMPLE)
    assert (program, command) == ("fedmq", name)
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    parser.parse_args(arguments)


@pytest.mark.parametrize("name", ["aggregator", "export"])
def test_the_help_says_what_is_taken_where_nothing_is_given(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "of the lines on standard error (default: info)" in said
    assert name != "export" or "numpy's format (default: model.safetensors, if nothing" in said


def test_its_help_says_which_commands_there_are_and_without_one_that_is_a_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name, (_, what) in COMMANDS.items():
        assert f"  {name} " in said
        assert what in said
    assert main([]) == 2
    assert capsys.readouterr() == ("", said)


def test_an_unknown_command_or_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["agregator"], "fedmq: error: unknown command 'agregator'; did you mean 'aggregator'?"),
        (["Status", "--now"], "unknown command 'Status'; did you mean 'status'?"),
        (["xyzzy"], "unknown command 'xyzzy'; known are demo, try, check, "),
        (["--now"], "the following arguments are required: COMMAND"),
        (["stop", "--now"], "unrecognized arguments: --now"),
        (["check"], "the following arguments are required: task"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("fedmq 0.")


def test_check_prints_what_a_device_will_need(capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.py").write_text(TORCH_TASK)
    assert main(["check", "task.py", "--client-id", "dev-7", "--set", "plan.codec=float16"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["task"].startswith("task.py, version ")
    assert said["model"].startswith("4 parameters, 0 statistics, layout ")
    assert said["data"] == "20 samples to train on, as dev-7"
    assert said["update"] == "8 bytes as float16: 2.0 times fewer than float32's 16"
    assert re.fullmatch(r"1 step: loss [\d.]{1,6}(e-\d+)?", said["training"])
    seconds = r"[\d.,e-]{1,7} s"
    least = r"( \(the least of \d runs\))?"
    assert re.fullmatch(f"{seconds} for each epoch here, {seconds} for each update{least}", said["time"])
    assert said["broker"] == "not checked; --config FILE names it"
    Path("federation.toml").write_text('federation = "f"')
    assert main(["check", "task.py"]) == 0
    assert "broker     not checked; --config federation.toml names the one in this file\n" in capsys.readouterr().out
    assert set(said) >= {"test", "time", "memory"}


@pytest.mark.parametrize(
    ("lasts", "seconds", "runs"),
    [
        ([0.25, 0.0125, 0.125, 0.05, 0.5], 0.0125, 5),
        ([0.5, 0.25, 0.5], 0.25, 3),
        ([20.0], 20.0, 1),
    ],
)
def test_check_takes_the_least_of_a_few_short_runs_for_the_time_of_a_training(
    monkeypatch: pytest.MonkeyPatch, lasts: list[float], seconds: float, runs: int
) -> None:
    now, left = [0.0], iter(lasts)

    def job() -> str:
        now[0] += next(left)
        return "trained"

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    result, least, count = check._timed(job)
    assert (result, count) == ("trained", runs)
    assert least == pytest.approx(seconds)
    assert [check._rounded(number) for number in (0.01234, 1.234, 123.4)] == ["0.012", "1.2", "123"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (None, "no such file"),
        ("def build_model(:", "cannot be loaded: SyntaxError"),
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("build_model = 3", "build_model is a int, expected a function"),
        ("def build_model(): ...", "it has no load_data; define load_data(client_id)"),
        (TORCH_TASK.replace("fedmq.Data(train=", "dict(train="), "load_data returned a dict, expected fedmq.Data"),
        (
            TORCH_TASK.replace("torch.nn.MSELoss()", "lambda outputs, targets: 1 / 0"),
            "broken.py failed while evaluating on the test data: ZeroDivisionError: division by zero (",
        ),
        (TORCH_TASK.replace("torch.nn.MSELoss()", "lambda outputs, targets: 1 / 0"), "broken.py:13)"),
        (
            TORCH_TASK.replace(", test=(inputs, targets)", "")
            .replace("MSELoss", "CrossEntropyLoss")
            .replace("targets = inputs.sum(1, keepdim=True)", "targets = torch.full((20,), 4)"),
            "broken.py failed while training: IndexError: Target 4 is out of bounds.",
        ),
        (
            TORCH_TASK.replace("inputs = torch", "inputs = recordings"),
            "broken.py failed while loading the data of 'client-1': NameError: name 'recordings' is not defined (",
        ),
        (
            TORCH_TASK.replace("nn.Linear", "nn.Lineal"),
            "broken.py failed while building the model: AttributeError: module 'torch.nn' has no attribute 'Lineal' (",
        ),
        (TORCH_TASK.replace("(3, 1)", "(4, 1)"), "RuntimeError"),
        (
            TORCH_TASK.replace(".sum(1, keepdim=True)", ".sum(1)"),
            "output and its targets differ in shape, and would be compared all with all; make them alike (using a",
        ),
    ],
)
def test_check_names_what_is_wrong_with_a_task_and_ends_with_2(
    text: str | None, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("broken.py").write_text(text)
    assert main(["check", "broken.py"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fedmq check: ")
    assert "broken.py" in said
    assert mistake in said


@pytest.mark.parametrize(
    ("daily", "codec", "mistake"),
    [
        ("daily_uplink", "plan.codec=float32", "an update takes {}: allow more, or choose another plan.codec"),
        (
            "daily_downlink",
            "aggregator.snapshot_codec=float32",
            "a model takes {}: allow more, or choose another aggregator.snapshot_codec",
        ),
    ],
)
def test_check_says_what_a_day_has_room_for_and_ends_with_2_where_that_is_nothing(
    daily: str, codec: str, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 4 * (3 * 10_000 + 10_000 + 10_000 + 1) + 2 * 256 + 1024  # in two parts
    task = ["check", "task.py", "--set", codec, "--set", "plan.zstd=false"]
    Path("task.py").write_text(LARGE_TORCH_TASK.replace("5000", "10000"))
    assert main([*task, "--set", f"device.{daily}={3 * size}"]) == 0
    assert f"budget     {daily} carries 3 " in capsys.readouterr().out
    assert main([*task, "--set", f"device.{daily}={3 * size - 1}"]) == 0
    assert f"budget     {daily} carries 2 " in capsys.readouterr().out
    assert main([*task, "--set", f"device.{daily}={size - 1}"]) == 2
    said = capsys.readouterr().err
    assert said == f"fedmq check: device.{daily} is {size - 1} bytes, {mistake.format(size)}\n"


def test_check_says_what_a_model_has_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.py").write_text(TORCH_TASK.replace("torch.nn.Linear(3, 1)", "dict(w=3)"))
    assert main(["check", "task.py"]) == 2
    assert capsys.readouterr().err == "fedmq check: build_model() gave a dict, expected a torch.nn.Module\n"


def topics_of(said: str) -> dict[str, str]:
    """What `fedmq check` said of each topic of federation f."""
    lines = [line.split(maxsplit=1) for line in said.splitlines() if "fedmq/f/" in line]
    return {topic.removeprefix("fedmq/f/"): verdict for topic, verdict in lines}


@pytest.mark.broker
def test_check_tries_login_rights_and_size_with_the_broker(
    run_mosquitto: RunMosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("task.py").write_text(TORCH_TASK)
    url = run_mosquitto()
    Path("federation.toml").write_text(f'federation = "f"\n[broker]\nurl = "{url}"')
    assert main(["check", "task.py", "--client-id", "dev-7", "--config", "federation.toml"]) == 0
    said = capsys.readouterr().out
    assert f"broker     {url}: logged in" in said
    unseen = dict.fromkeys(("model", "aggregator", "reply/dev-7", "update/dev-7"), "not refused")
    assert topics_of(said) == unseen | {"status/dev-7": "works"}
    assert "a message of 218 bytes passed" in said


def test_check_gets_along_with_a_broker_that_speaks_only_3_1_1(embedded: RunningBroker) -> None:
    Path("task.py").write_text(TASK)
    assert main(["check", "task.py", "--federation", "f", "--broker", embedded.urls["3.1.1"]]) == 0


@pytest.mark.broker
@pytest.mark.parametrize(
    ("rules", "version", "topic", "reason"),
    [
        ("topic read fedmq/f/#\ntopic write fedmq/f/status/dev-7", "5", "update/dev-7", "not authorized"),
        ("topic read fedmq/f/#\ntopic write fedmq/f/update/dev-7", "5", "status/dev-7", "not authorized"),
        # What Mosquitto does not say shows all the same.
        ("topic write fedmq/f/#", "5", "status/dev-7", "did not come back"),
        ("topic read fedmq/f/#\ntopic write fedmq/f/update/dev-7", "3.1.1", "status/dev-7", "did not come back"),
    ],
)
def test_check_says_which_right_is_missing(
    run_mosquitto: RunMosquitto,
    capsys: pytest.CaptureFixture[str],
    rules: str,
    version: str,
    topic: str,
    reason: str,
) -> None:
    Path("task.py").write_text(TASK)
    Path("rules").write_text(rules + "\n")
    url = run_mosquitto(f"acl_file {Path('rules').resolve()}")
    options = ["--federation", "f", "--broker", url, "--set", f'broker.mqtt_version="{version}"']
    assert main(["check", "task.py", "--client-id", "dev-7", *options]) == 1
    captured = capsys.readouterr()
    refused = {topic: said for topic, said in topics_of(captured.out).items() if said.startswith("refused: ")}
    assert list(refused) == [topic]
    assert reason in refused[topic]
    assert captured.err == (
        "fedmq check: the broker does not let this client do its work: is 'dev-7' the id that this login is for, and "
        "still in the federation? use the id of the bundle, or ask the operator for a new one; "
        "see its access rules and limits\n"
    )


@pytest.mark.parametrize("command", [["client"], ["check", "task.py"]])
def test_an_id_that_is_not_the_bundles_is_a_mistake_before_anything_is_sent(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("task.py").write_text(TASK)
    Path("federation.toml").write_text(
        'federation = "f"\ntask = "task.py"\n[device]\nclient_id = "dev-1"\n[broker]\nurl = "mqtt://127.0.0.1:1"'
    )
    assert main([*command, "--client-id", "dev-9", "--config", "federation.toml"]) == 2
    assert capsys.readouterr().err == (
        f"fedmq {command[0]}: client id 'dev-9' is given, and the login and keys of these settings are for 'dev-1' "
        "(device.client_id): leave out the id, or take the bundle of the other device\n"
    )


def test_the_id_of_a_device_comes_from_its_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.py").write_text(TORCH_TASK)
    Path("bundle.toml").write_text('federation = "f"\n[device]\nclient_id = "dev-1"')
    settings = load_settings("bundle.toml", environment={})
    assert settings.device_id(None) == settings.device_id("dev-1") == "dev-1"
    assert main(["client", "--federation", "f"]) == 2
    said = capsys.readouterr().err
    assert said == "fedmq client: which device is this? give --client-id ID, or set device.client_id in its file\n"


LARGE_TORCH_TASK = TORCH_TASK.replace("Linear(3, 1)", "Sequential(torch.nn.Linear(3, 5000), torch.nn.Linear(5000, 1))")


@pytest.mark.broker
@pytest.mark.parametrize(
    ("limit", "messages"), [("", "1 of at most 122,880"), ("max_packet_size 20000", "9 of at most 12,288")]
)
def test_check_says_how_many_messages_an_update_takes(
    run_mosquitto: RunMosquitto, capsys: pytest.CaptureFixture[str], limit: str, messages: str
) -> None:
    Path("task.py").write_text(LARGE_TORCH_TASK)
    plain = ("--set", "plan.codec=float32", "--set", "plan.zstd=false", "--set", "device.daily_uplink=1MB")
    assert main(["check", "task.py", "--federation", "f", "--broker", run_mosquitto(limit), *plain]) == 0
    said = capsys.readouterr().out
    assert f"messages   an update takes {messages} bytes" in said
    assert "budget     daily_uplink carries 9 updates a day" in said


@pytest.mark.broker
def test_check_says_when_a_broker_that_announces_no_limit_has_one(
    run_mosquitto: RunMosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("task.py").write_text(LARGE_TORCH_TASK)
    url = run_mosquitto("max_packet_size 20000")
    options = ("--set", "broker.mqtt_version='3.1.1'", "--set", "plan.codec=float32", "--set", "plan.zstd=false")
    assert main(["check", "task.py", "--federation", "f", "--broker", url, *options]) == 1
    said = capsys.readouterr().err
    assert "cut the connection at 100,004 bytes" in said
    assert "a message larger than it takes" in said


def test_check_says_when_there_is_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.py").write_text(TASK)
    assert main(["check", "task.py", "--broker", "mqtt://127.0.0.1:1"]) == 1
    assert "no broker answers at 127.0.0.1:1; is it running?" in capsys.readouterr().err


def test_status_says_at_once_why_it_does_not_get_through_and_for_how_long_it_tries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedmq.cli.status._CONNECT_SECONDS", 0.5)
    assert main(["status", "--federation", "f", "--broker", "mqtt://127.0.0.1:1"]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first == "fedmq status: no broker answers at 127.0.0.1:1; is it running?; trying for 0.5 s"
    assert "no broker answers at 127.0.0.1:1" in last


@pytest.mark.parametrize("engine", ["mosquitto", "embedded"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_broker_answers_and_ends_when_it_is_told_to(
    mosquitto_installed: None, engine: str, number: signal.Signals
) -> None:
    with fedmq("broker", "--engine", engine, "--port", "0") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(f"{engine} broker at mqtt://127.0.0.1:")
        port = int(said.split()[3].rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 5).close()
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_a_broker_does_not_take_a_port_that_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(["broker", "--port", str(port)]) == 1
    assert f"port {port} of this machine is in use" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["mosquitto", "embedded"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.7"])
def test_an_open_broker_refuses_to_be_reached_from_elsewhere(
    mosquitto_installed: None, capsys: pytest.CaptureFixture[str], engine: str, address: str
) -> None:
    assert main(["broker", "--engine", engine, "--port", "0", "--listen", address]) == 2
    said = capsys.readouterr().err
    why = "has no rules for topics" if engine == "embedded" else "is started without rules for topics"
    assert said == (
        f"fedmq broker: the {engine} broker {why}, and on {address} whoever reaches it may read and write everything;"
        " run a provisioned one with --secure, or say --insecure\n"
    )


@pytest.mark.parametrize("engine", ["mosquitto", "embedded"])
def test_an_open_broker_that_may_be_reached_from_elsewhere_says_what_that_means(
    mosquitto_installed: None, engine: str
) -> None:
    with fedmq("broker", "--engine", engine, "--port", "0", "--listen", "0.0.0.0", "--insecure") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        at = rf"{engine} broker at mqtt://127.0.0.1:(\d+) on this machine, and for others at mqtt://HOST:\1,"
        assert re.match(at, said), said
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read().startswith(f"warning: the {engine} broker ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "999999"], "--port 999999: expected a port from 1 to 65535, or 0 for a free one"),
        (["--port", "-1"], "--port -1: expected a port from 1 to 65535, or 0 for a free one"),
        (["--listen", "localhost"], "'localhost': expected an IP address of this machine, such as 127.0.0.1"),
        (["--secure", "."], "no provisioned broker is in it; `fedmq provision --out "),
        (["--secure", ".", "--engine", "embedded"], "the embedded broker has no rules for topics; --secure needs Mosq"),
        (
            ["--secure", ".", "--port", "1883"],
            "--port does not go with --secure: the provisioned configuration decides it; `fedmq provision --out DIR"
            " --port N` changes it, in the bundles too",
        ),
        (["--secure", ".", "--max-message-bytes", "1"], "--max-message-bytes does not go with --secure"),
    ],
)
def test_what_does_not_go_together_for_a_broker_is_one_sentence(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["broker", *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_stop_and_export_say_where_they_found_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--federation", "f"]) == 2
    assert main(["export", "--federation", "f"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "fedmq stop: run folder runs/f: no aggregator has worked there; is it the right federation?",
        "fedmq export: run folder runs/f: there is no run in it; give the aggregator's folder",
    ]


@pytest.mark.parametrize(
    ("arguments", "mistakes"),
    [
        (["--out", "model.pt"], ["--out model.pt: it writes *.safetensors or *.npz; choose such a name"]),
        (["--out", "model"], ["--out model: it writes *.safetensors or *.npz; choose such a name"]),
        (
            ["--out", "model.npz", "--history", "h.csv", "--report", "r.jpg"],
            [
                "--history h.csv: it writes *.jsonl; choose such a name",
                "--report r.jpg: it writes *.png; choose such a name",
            ],
        ),
    ],
)
def test_export_refuses_a_name_that_promises_what_it_does_not_write(
    arguments: list[str], mistakes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--federation", "f", *arguments]) == 2
    assert capsys.readouterr().err.splitlines() == [f"fedmq export: {mistake}" for mistake in mistakes]


@pytest.mark.parametrize("engine", ["auto", "embedded"])
def test_try_runs_a_small_task_to_its_end(engine: str) -> None:
    Path("task.py").write_text(TASK)
    save_file({"w": np.zeros(4, np.float32)}, "weights.safetensors")
    options = ["--clients", "2", "--pace", "0.05", "--seconds", "60", "--engine", engine, "--out", "tried"]
    more = ["--set", "aggregator.init=weights.safetensors", "--set", "aggregator.goal.versions=4"]
    begun = time.monotonic()
    with fedmq("try", "task.py", *options, *more) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert time.monotonic() - begun < 30
    assert out.startswith("version 4, ")
    assert "2 of 2 clients" in err or "clients ready" in err
    assert read_run(Path("tried/run")).version == 4
    with safe_open("tried/model.safetensors", "numpy") as file:
        assert file.get_tensor("w").min() > 0


@pytest.mark.parametrize(("bad", "code"), [(("client-1", "client-2"), 1), (("client-2",), 0)])
def test_try_names_each_client_whose_training_fails_and_ends_with_1_if_nobody_trained(
    bad: tuple[str, ...], code: int
) -> None:
    spoilt = f"train=(inputs / (client_id not in {bad}), targets)"
    Path("task.py").write_text(TORCH_TASK.replace("train=(inputs, targets)", spoilt))
    options = ["--clients", "2", "--pace", "0.05", "--seconds", "15", "--engine", "embedded", "--out", "tried"]
    with fedmq("try", "task.py", *options) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    ended = [line for line in err.splitlines() if line.startswith("fedmq try: ")]
    for name in ("client-1", "client-2"):
        said = f"{name}: the training failed: the loss is NaN before training: look for NaN"
        assert err.count(f"task.py: {said}") == (name in bad)
        assert sum(line.startswith(f"fedmq try: {said}") for line in ended) == (name in bad)
    nothing = "fedmq try: nothing was trained: no update was accepted, and 2 of 2 clients failed; logs: tried/logs"
    assert ended[len(bad) :] == [nothing] * code
    assert ("version 0, 0 updates" in out) == bool(code)


def test_try_can_be_interrupted_and_shows_what_it_has_come_to() -> None:
    Path("task.py").write_text(TASK)
    save_file({"w": np.zeros(4, np.float32)}, "weights.safetensors")
    options = ["--clients", "1", "--pace", "0.05", "--out", "tried", "--set", "aggregator.init=weights.safetensors"]
    with fedmq("try", "task.py", *options) as process:
        log = Path("tried/logs/aggregator.log")
        until(lambda: log.exists() and "version=3 " in log.read_text(), "a few versions")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "stopping\nversion " in out
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["demo"], ["try", "task.py", "--clients", "1"]])
def test_nothing_goes_on_with_the_run_of_another_try(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.py").write_text(TASK)
    Path("tried/run").mkdir(parents=True)
    assert main([*command, "--out", "tried"]) == 2
    assert f"fedmq {command[0]}: a run is in tried already; name a new folder with --out" in capsys.readouterr().err
    assert list(Path("tried/run").iterdir()) == []


@pytest.mark.parametrize("command", [["demo"], ["try", "task.py", "--clients", "1"]])
def test_a_folder_that_cannot_be_used_is_one_sentence_and_code_2(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("task.py").write_text(TASK)
    Path("afile").write_text("")
    for out, why in (("afile", "it is a file"), ("afile/below", "a part of this path is a file")):
        assert main([*command, "--out", out]) == 2
        said = f"fedmq {command[0]}: {out}: {why} and no folder; name another folder with --out\n"
        assert capsys.readouterr().err == said

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert main([*command, "--out", "tried"]) == 2
    said = f"fedmq {command[0]}: tried: Permission denied; name another folder with --out\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("command", "folder", "said"),
    [
        (["aggregator"], "aggregator.folder", "run folder {}: it is a file and no folder"),
        (["client", "--client-id", "a"], "device.folder", "device folder {}/a: a part of this path is a file"),
    ],
)
def test_a_folder_of_a_service_that_cannot_be_used_is_code_2_which_is_not_started_again(
    command: list[str], folder: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("task.py").write_text(TASK)
    save_file({"w": np.zeros(4, np.float32)}, "weights.safetensors")
    Path("afile").write_text("")
    settings = ["--set", "task=task.py", "--set", "aggregator.init=weights.safetensors", "--set", f"{folder}=afile"]
    assert main([*command, "--federation", "f", *settings]) == 2
    assert said.format(Path("afile").absolute()) in capsys.readouterr().err


@pytest.mark.parametrize("command", [["demo", "--max-seconds"], ["try", "task.py", "--seconds"]])
@pytest.mark.parametrize("seconds", ["-4", "0", "nan", "inf"])
def test_a_length_of_time_that_is_none_is_said_of_the_option(
    command: list[str], seconds: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*command, seconds]) == 2
    said = f"fedmq {command[0]}: {command[-1]} {seconds}: expected a number of seconds above 0\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_try_with_a_task_that_cannot_work_says_so_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.py").write_text("import nosuchmodule")
    assert main(["try", "broken.py"]) == 2
    assert "No module named 'nosuchmodule'" in capsys.readouterr().err


def test_try_works_again_and_again_on_a_broker_that_is_there(mosquitto: RunningBroker) -> None:
    Path("task.py").write_text(TASK)
    save_file({"w": np.zeros(4, np.float32)}, "weights.safetensors")
    options = ["--broker", mosquitto.url, "--clients", "1", "--pace", "0.05", "--seconds", "60"]
    more = ["--set", "aggregator.init=weights.safetensors", "--set", "aggregator.goal.versions=2"]
    for folder in ("first", "second"):
        with fedmq("try", "task.py", *options, *more, "--out", folder) as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert out.startswith("version 2, ")
