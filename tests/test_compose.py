"""docker-compose.yml and Dockerfile without a Docker daemon: read by Compose, checked, and run as plain processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import find_mosquitto
from fedmq.settings import load_settings
from fedmq.watch import Watch
from tests.test_docs import parser_of

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "compose"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MOSQUITTO_CONF = (ROOT / "broker_config" / "mosquitto.conf").read_text(encoding="utf-8")
PATIENCE = 90.0
MOUNTED = "/federation/"  # where containers see FOLDER


@pytest.fixture(scope="module")
def compose() -> Any:
    """docker-compose.yml as Compose understands it."""
    commands = [["docker", "compose"], ["docker-compose"]]
    for command in commands:
        if shutil.which(command[0]) and not _run(*command, "version").returncode:
            break
    else:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("no docker-compose: in CI the compose file is read")
        pytest.skip("no docker-compose on this machine")
    arguments = [*command, "--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml"), "config"]
    quiet = _run(*arguments, "--quiet")
    assert quiet.returncode == 0, quiet.stderr
    as_json = _run(*arguments, "--format", "json")
    if as_json.stdout.startswith("{"):
        return json.loads(as_json.stdout)
    # Compose 1 says it as YAML; it is a Python program, so the Python that it runs on can read that.
    reader = Path(str(shutil.which("docker-compose"))).read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    said = _run(*arguments)
    read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
    return json.loads(subprocess.run([*reader.split(), "-c", read], input=said.stdout, capture_output=True, text=True,
                                     check=True).stdout)  # fmt: skip


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def command_of(service: Any) -> list[str]:
    """What the container runs."""
    return [*(service.get("entrypoint") or instruction("ENTRYPOINT")), *service["command"]]


def health_of(service: Any) -> list[str]:
    """What Docker runs in the container now and then; empty if nothing."""
    test = service["healthcheck"].get("test", ["NONE"])
    test = ["CMD-SHELL", test] if isinstance(test, str) else test
    return {"CMD": test[1:], "CMD-SHELL": ["sh", "-c", *test[1:]], "NONE": []}[test[0]]


def words_of(command: list[str]) -> list[str]:
    """The words of the first program that a command runs."""
    if command[:2] == ["sh", "-c"]:
        return shlex.split(command[2].replace("$$", "$").split("|")[0].removeprefix("exec "))
    return command


def instruction(name: str) -> list[str]:
    """The last instruction of this name in the Dockerfile, in its JSON form."""
    return [str(word) for word in json.loads(re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])]


def mounts_of(service: Any) -> list[tuple[str, str]]:
    """Source and target of each volume, in either version's form."""
    volumes = service.get("volumes", [])
    pairs = [volume.split(":")[:2] if isinstance(volume, str) else (volume["source"], volume["target"])
             for volume in volumes]  # fmt: skip
    return [(str(source), str(target)) for source, target in pairs]


def test_the_services_are_those_that_the_readme_speaks_of(compose: Any) -> None:
    assert {"broker", "aggregator", "client"} <= set(compose["services"])


def test_every_mounted_file_and_every_volume_exists(compose: Any) -> None:
    for name, service in compose["services"].items():
        for source, _ in mounts_of(service):
            assert Path(source).exists() if "/" in source else source in compose["volumes"], f"{name}: {source}"


def test_every_fedmq_command_parses_and_its_settings_load(compose: Any) -> None:
    checked = 0
    for service in compose["services"].values():
        for command in ([command_of(service)] if "command" in service else []) + [health_of(service)]:
            words = words_of(command)
            if words[:1] != ["fedmq"]:
                continue
            options = parser_of(words[1]).parse_args(words[2:])
            assert (str(FOLDER), MOUNTED.rstrip("/")) in mounts_of(service)
            assert load_settings(str(options.config).replace(MOUNTED, f"{FOLDER}/"), environment={}).task
            checked += 1
    assert checked >= 4


def test_the_settings_point_at_the_broker_and_at_the_volume(compose: Any) -> None:
    settings = load_settings(FOLDER / "federation.toml", environment={})
    assert settings.broker.host in compose["services"]
    assert f"listener {settings.broker.port}\n" in MOSQUITTO_CONF
    targets = {target: source for source, target in mounts_of(compose["services"]["aggregator"])}
    assert targets[str(settings.run_folder.parent)] in compose["volumes"]
    assert settings.broker.data_bytes < int(re.findall(r"^max_packet_size (\d+)", MOSQUITTO_CONF, re.MULTILINE)[0])
    assert any("/mosquitto/data" in target for _, target in mounts_of(compose["services"]["broker"]))


def test_each_lasting_service_is_watched_restarted_and_not_root(compose: Any) -> None:
    for name in ("broker", "aggregator", "client"):
        service = compose["services"][name]
        assert health_of(service)
        assert service["restart"] in ("on-failure", "unless-stopped")
        assert not service.get("user", "").startswith("0")
    assert "user" in compose["services"]["broker"]
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["fedmq"]


def test_no_port_is_published_because_the_broker_lets_everyone_in(compose: Any) -> None:
    assert not any("ports" in service for service in compose["services"].values())


def test_the_dockerfile_copies_everything_that_the_package_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)]
    sources = {source for words in copied for source in words}
    assert all((ROOT / source).exists() for source in sources)
    assert ignored[0] == "*"
    assert sources == kept, "what is copied has to be let through by .dockerignore, and nothing else"
    links = {os.readlink(path).removeprefix("../") for path in (ROOT / "fedmq").iterdir() if path.is_symlink()}
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {name for name in ("README.md", "LICENSE") if f'"{name}"' in pyproject}
    assert links | named | {"fedmq", "pyproject.toml"} <= sources
    assert not any(fnmatch("fedmq", pattern) for pattern in ignored[1:])


def test_the_image_runs_fedmq_with_the_torch_that_the_makefile_names() -> None:
    assert instruction("ENTRYPOINT") == ["fedmq"]
    pinned = set(re.findall(r"torch==[\d.]+", DOCKERFILE))
    assert pinned == set(re.findall(r"torch==[\d.]+", (ROOT / "Makefile").read_text(encoding="utf-8")))


def test_the_image_can_work_in_a_federation_whose_messages_are_signed() -> None:
    assert re.findall(r'^RUN pip install .*"/build\[(.*)\]"$', DOCKERFILE, re.MULTILINE) == ["torch,secure"]


def test_the_task_learns_and_knows_a_client_by_its_id(tmp_path: Path) -> None:
    import torch

    import fedmq
    from fedmq.tasks.loader import load_task

    torch.set_num_threads(1)
    load_data = load_task(FOLDER / "task.py").load_data
    assert load_data is not None
    shares = [torch.bincount(load_data(name).train[1], minlength=4).tolist() for name in ("a", "a", "b")]
    assert shares[0] == shares[1] != shares[2]
    plan = load_settings(FOLDER / "federation.toml", environment={}).plan
    sandbox = fedmq.Sandbox(FOLDER / "task.py", clients=["a", "b", "c", "d"], seed=0, plan=plan)
    sandbox.run(versions=40)
    assert sandbox.evaluate()["accuracy"] > 0.9


@pytest.mark.broker
def test_the_services_make_versions_as_plain_processes(compose: Any, mosquitto_installed: None, tmp_path: Path) -> None:
    """The very commands of the file, but for paths, port and the machine's one host name."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FEDMQ_BROKER__URL": f"mqtt://127.0.0.1:{port}",
        "FEDMQ_AGGREGATOR__FOLDER": str(tmp_path / "run"),
        "XDG_STATE_HOME": str(tmp_path),
    }
    settings = load_settings(FOLDER / "federation.toml", environment=environment)

    def here(command: list[str], host: str) -> list[str]:
        words = [word.replace("$$", "$").replace(MOUNTED, f"{FOLDER}/") for word in command]
        return [
            str(shutil.which("env")),
            *(f"{key}={value}" for key, value in (environment | {"HOSTNAME": host}).items()),
            *words,
        ]

    services = compose["services"]
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:

        def start(name: str, command: list[str]) -> None:
            processes[name] = process = start_child(command, tmp_path / f"{name}.log")
            stack.callback(process.wait)
            stack.callback(process.kill)

        def healthy(name: str, host: str) -> bool:
            command = here(health_of(services[name]), host)
            command += ["-p", str(port)] if "mosquitto_sub" in command else []
            return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0

        start("broker", [str(find_mosquitto()), "-c", str(_mosquitto_conf(tmp_path, port))])
        start("aggregator", here(command_of(services["aggregator"]), "aggregator"))
        for host in ("host-a", "host-b"):
            start(host, here(command_of(services["client"]), host))
        watch = stack.enter_context(Watch(settings, "compose-eye"))
        deadline = time.monotonic() + PATIENCE
        while watch.progress is None or watch.progress.version < 2 or len(watch.clients) < 2:
            watch.poll(0.1)
            logs = "".join(f"\n--- {log.name}\n{log.read_text()[-1500:]}" for log in tmp_path.glob("*.log"))
            ended = [name for name, process in processes.items() if process.poll() is not None]
            assert not ended, f"ended: {', '.join(ended)}{logs}"
            assert time.monotonic() < deadline, f"no version 2 in {PATIENCE:g} s{logs}"
        assert set(watch.clients) == {"host-a", "host-b"}
        assert healthy("aggregator", "aggregator")
        assert healthy("client", "host-a")
        assert not healthy("client", "host-c")
        assert not shutil.which("mosquitto_sub") or healthy("broker", "broker")


def _mosquitto_conf(folder: Path, port: int) -> Path:
    """The container's configuration, for this machine."""
    text = MOSQUITTO_CONF
    for old, new in (
        ("listener 1883\n", f"listener {port} 127.0.0.1\n"),
        ("/mosquitto/data/", f"{folder}/"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    if os.geteuid() == 0:
        text += "user root\n"  # or it becomes a user who may not write here
    file = folder / "mosquitto.conf"
    file.write_text(text, encoding="utf-8")
    return file
