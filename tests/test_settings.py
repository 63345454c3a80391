"""federation.toml and what overrides it; how its mistakes read, in Python and on the command line."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmq.cli import main
from fedmq.schemas.errors import ConfigError
from fedmq.settings import load_settings
from tests import settings_page


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In an empty folder, without settings from outside; afterwards logging is as it was."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("FEDMQ_"):
            monkeypatch.delenv(name)
    logger = logging.getLogger("fedmq")
    handlers, propagate, level = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


def written(text: str) -> Path:
    path = Path("federation.toml").resolve()
    path.write_text(text)
    return path


def mistakes(text: str, *overrides: str, environment: dict[str, str] | None = None) -> list[str]:
    """What is wrong with such a file, line by line, without its path."""
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, overrides, environment or {})
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_a_name_is_enough() -> None:
    settings = load_settings(written('federation = "gestures"'), environment={})
    assert settings.federation == "gestures"
    assert settings.broker.url == "mqtt://127.0.0.1:1883"
    assert settings.plan.local_epochs == 1
    assert settings.aggregator.build_strategy().name == "fedbuff"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[plan]\nlearning_rat = 0.1", "plan.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ("[aggregator.goal]\nverions = 3", "aggregator.goal.verions: unknown key; did you mean 'versions'?"),
        ("learning_rate = 0.1", "learning_rate: unknown key; did you mean 'plan.learning_rate'?"),
        ("momentum = 0.1", "momentum: unknown key; did you mean 'plan.momentum' or 'aggregator.momentum'?"),
        ("[plan]\nversions = 3", "plan.versions: unknown key; did you mean 'aggregator.goal.versions'?"),
        ("[client]\npace = 1", "client: unknown key; did you mean 'device'?"),
        (
            "[plan]\ncodec = 4",
            "plan.codec: found 4, expected: one of float32, float16, bfloat16, int8, eden4, eden2, eden1, top_k",
        ),
        ("plann = 3", "plann: unknown key; did you mean 'plan'?"),
        ("xyzzy = 3", "xyzzy: unknown key; known are federation, task, broker, plan, aggregator, device, signing"),
        ('[plan]\nlearning_rate = "0.1"', "plan.learning_rate: found '0.1', expected: a valid number"),
        ("[plan]\nbatch_size = 1.5", "plan.batch_size: found 1.5, expected: a valid integer"),
        ("[device]\nthreads = true", "device.threads: found True, expected: a valid integer"),
        ("plan = 3", "plan: found 3, expected: a section, [plan]"),
        ("[[plan]]\nmomentum = 0.5", "plan: found a list, expected: a section, [plan]"),
        ("[plan]\nmomentum = [0.5]", "plan.momentum: found a list, expected: a valid number"),
        ("task = 3", "task: found 3, expected: a valid string"),
        ("[plan]\nmomentum = 1.0", "plan.momentum: found 1.0, expected: less than 1"),
        ("[plan]\nlearning_rate = nan", "plan.learning_rate: found nan, expected: a finite number"),
        ("[broker]\nkeepalive_seconds = 1", "broker.keepalive_seconds: found 1, expected: greater than or equal to 5"),
        (
            '[plan]\noptimizer = "adam"\nmomentum = 0.5',
            "plan: momentum is a setting of optimizer = 'sgd', found optimizer = 'adam'",
        ),
        ('[plan]\noptimizer = "sdg"', "plan.optimizer: found 'sdg', expected: 'sgd', 'adam' or 'adamw'"),
        (
            '[aggregator]\nstrategy = "fedbuf"',
            "aggregator: strategy 'fedbuf': expected one of fedbuff, fedasync, fedasync_delta, fedavg, median, "
            "trimmed_mean, multi_krum",
        ),
        (
            '[aggregator]\nstrategy = "fedasync"\nalpha = 1.5',
            "aggregator: strategy 'fedasync': alpha = 1.5, expected more than 0, at most 1",
        ),
        (
            '[aggregator]\nstrategy = "fedavg"\nalpha = 0.5',
            "aggregator: strategy 'fedavg' has no setting 'alpha'; "
            "it has clients, over_selection, deadline, server_learning_rate, momentum, clip_norm, clip_medians",
        ),
        (
            '[broker]\nurl = "broker.example:1883"',
            "broker.url: 'broker.example:1883' is not the url of an MQTT broker; "
            "write mqtt://host:1883, or mqtts://host:8883 for TLS",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_where_what_was_found_and_what_to_do(text: str, mistake: str) -> None:
    assert mistakes(f'federation = "a"\n{text}') == [mistake]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "+"])
def test_a_federations_name_has_to_fit_into_a_topic(name: str) -> None:
    expected = f"federation: found {name!r}, expected: 1 to 64 of A-Z a-z 0-9 _ -"
    assert mistakes(f'federation = "{name}"') == [expected]


def test_every_mistake_has_its_own_line_and_none_hides_another() -> None:
    found = mistakes('[plan]\nlearning_rate = "fast"\nmomentums = 0.5\n[device]\npace = -1')
    assert found == [
        "federation: missing; add it",
        "plan.learning_rate: found 'fast', expected: a valid number",
        "plan.momentums: unknown key; did you mean 'momentum'?",
        "device.pace: found -1, expected: greater than or equal to 0",
    ]


def test_what_is_not_toml_or_not_there_is_said_with_the_place() -> None:
    (found,) = mistakes('federation = "a"\nplan = oops')
    assert found == "it is not TOML: Invalid value (at line 2, column 8)"
    Path("federation.toml").write_bytes(b'federation = "\xff"')
    with pytest.raises(ConfigError, match=r"federation\.toml: it is not TOML: 'utf-8'"):
        load_settings("federation.toml")
    with pytest.raises(ConfigError, match=r"^missing\.toml: no such file; write one, or name another with --config$"):
        load_settings("missing.toml")
    with pytest.raises(ConfigError, match="it cannot be read: Is a directory"):
        load_settings(Path())


def test_options_go_before_the_environment_and_both_before_the_file() -> None:
    path = written('federation = "a"\n[plan]\nlearning_rate = 0.1\nbatch_size = 8\nmomentum = 0.5')
    environment = {
        "FEDMQ_PLAN__LEARNING_RATE": "0.2",
        "FEDMQ_PLAN__BATCH_SIZE": "16",
        "FEDMQ_AGGREGATOR__GOAL__VERSIONS": "7",
    }
    settings = load_settings(path, ["plan.learning_rate=0.3", "aggregator.strategy=fedasync"], environment)
    assert (settings.plan.learning_rate, settings.plan.batch_size, settings.plan.momentum) == (0.3, 16, 0.5)
    assert settings.aggregator.goal.versions == 7
    assert settings.aggregator.strategy == "fedasync"


def test_an_override_that_cannot_work_is_named_by_where_it_came_from() -> None:
    text = 'federation = "a"'
    assert mistakes(text, "plan.learning_rate=fast") == [
        "--set: plan.learning_rate: found 'fast', expected: a valid number"
    ]
    assert mistakes(text, environment={"FEDMQ_PLAN__BATCH_SIZE": "0"}) == [
        "FEDMQ_PLAN__BATCH_SIZE: plan.batch_size: found 0, expected: greater than or equal to 1"
    ]
    assert mistakes(text, "pln.learning_rate=1") == ["--set pln.learning_rate: pln: unknown key; did you mean 'plan'?"]
    wrong = "aggregator: strategy 'fedavgg': expected one of "
    (found,) = mistakes(text, "aggregator.strategy=fedavgg")
    assert found.startswith(f"{Path('federation.toml').resolve()} with --set aggregator.strategy: {wrong}")
    given = ["aggregator.folder=runs", "aggregator.strategy=fedavg", "aggregator.hostile=0.3"]
    (found,) = mistakes(text, *given)
    where = f"{Path('federation.toml').resolve()} with --set aggregator.strategy, --set aggregator.hostile: aggregator"
    assert found.startswith(f"{where}: strategy 'fedavg' has no setting 'hostile'; it has ")
    with pytest.raises(ConfigError, match=f"^--set aggregator.strategy: {wrong}"):
        load_settings(None, ["federation=a", "aggregator.strategy=fedavgg"], {})
    assert mistakes(text, "learning_rate") == [
        "--set learning_rate: expected KEY=VALUE, such as plan.learning_rate=0.1"
    ]
    assert mistakes(text, "federation.x=3") == ["--set federation.x: 'federation' is a value, not a section"]


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("FEDMQ_PLN__LEARNING_RATE", "pln: unknown key; did you mean 'plan'?"),
        ("FEDMQ_BROKR__USERNAME", "brokr: unknown key; did you mean 'broker'?"),
        ("FEDMQ_CLIENT__PACE", "client: unknown key; did you mean 'device'?"),
        ("FEDMQ_AGGREGATOR__GAOL__VERSIONS", "aggregator.gaol: unknown key; did you mean 'goal'?"),
        (
            "FEDMQ_XYZZY__X",
            "xyzzy: unknown key; known are federation, task, broker, plan, aggregator, device, signing",
        ),
    ],
)
def test_a_section_that_does_not_exist_is_a_mistake_in_the_environment_too(name: str, mistake: str) -> None:
    assert mistakes('federation = "a"', environment={name: "hunter2"}) == [f"{name}: {mistake}"]


def test_other_names_in_the_environment_are_no_settings() -> None:
    environment = {"FEDMQ_CRASH_AT": "committed:1", "FEDMQ_CRASH_LOG": "log", "FEDMQ_FEDERATION": "b"}
    assert load_settings(written('federation = "a"'), environment=environment).federation == "b"


def test_paths_count_from_the_files_folder_and_those_of_options_from_the_present_one(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "federation.toml").write_text(
        'federation = "a"\ntask = "task.py"\n'
        '[broker]\nurl = "mqtts://h"\nusername = "u"\npassword_file = "secrets/password"\nca_file = "/etc/ca.pem"\n'
        '[aggregator]\ninit = "weights.safetensors"\n[device]\nfolder = "../devices"'
    )
    settings = load_settings("elsewhere/federation.toml", ["broker.cert_file=c.pem", "broker.key_file=~/k.pem"], {})
    assert settings.task == folder / "task.py"
    assert settings.broker.password_file == folder / "secrets" / "password"
    assert settings.broker.ca_file == Path("/etc/ca.pem")
    assert settings.broker.cert_file == tmp_path / "c.pem"
    assert settings.broker.key_file == Path.home() / "k.pem"
    assert settings.aggregator.init == folder / "weights.safetensors"
    assert settings.run_folder == folder / "runs" / "a"
    assert settings.device_folder("dev-7").resolve() == tmp_path / "devices" / "dev-7"


def test_a_device_folder_is_in_the_users_state_folder_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = load_settings(None, ["federation=a"], {})
    assert settings.device_folder("dev-7") == tmp_path / "state" / "fedmq" / "a" / "dev-7"
    assert settings.run_folder == Path("runs/a")


def test_a_password_is_taken_as_it_is() -> None:
    settings = load_settings(None, ["federation=a", "broker.username=7"], {"FEDMQ_BROKER__PASSWORD": "0123"})
    assert settings.broker.username == "7"
    assert settings.broker.read_password() == "0123"


@pytest.mark.parametrize(
    "text",
    [
        '[broker]\npassword = "hunter2"',
        '[broker]\nusername = "u"\npassword = ["hunter2"]',
        '[broker]\nusername = "u"\npassword = "hunter2"\npassword_file = "f"',
        '[broker]\npasword = "hunter2"',
        '[broker]\nusername = "u"\npassword = "hunter2"\nkeepalive_seconds = 0',
        '[broker]\nusername = "u"\npassword = "hunter2\n',
        '[[broker]]\nusername = "u"\npassword = "hunter2"',
        'broker = "u:hunter2"',
        'signing = "hunter2"',
        'task = ["hunter2"]',
        '[plan]\nlearning_rate = "mqtt://u:hunter2@host"',
        *(
            f'[broker]\nurl = "{url}"'
            for url in (
                "mqtt://u:hunter2@host",
                "mqtt//u:hunter2@host",
                "u:hunter2@host:1883",
                "mqtt://u:hunter2",
                "u:hunter2",
                "mqtt:u:hunter2",
                "mqtt://[u:hunter2",
                "mqtt://host?password=hunter2",
                "mqtt://host/u:hunter2",
                "http://host/hunter2",
            )
        ),
    ],
)
def test_a_secret_is_in_no_message(text: str) -> None:
    path = written(f'federation = "a"\n{text}')
    with pytest.raises(ConfigError) as caught:
        load_settings(path, (), {})
    assert len(str(caught.value).splitlines()) == 1
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "environment",
    [
        {"FEDMQ_BROKER__PASSWORD": "hunter2\udcff"},
        {"FEDMQ_BROKER__PASSWORD": "hunter2", "FEDMQ_FEDERATION": "\udcff"},
        {"FEDMQ_BROKER__PASSWORD": "hunter2", "FEDMQ_BROKER": "mqtt://host"},
        {"FEDMQ_BROKER": "mqtt://u:hunter2@host"},
    ],
)
def test_a_secret_from_the_environment_is_in_no_message(environment: dict[str, str]) -> None:
    (found,) = mistakes('federation = "a"\n[broker]\nusername = "u"', environment=environment)
    assert found.startswith("FEDMQ_")
    assert "hunter2" not in found


@pytest.mark.parametrize("option", ["broker.password=hunter2", 'broker={username="u", password="hunter2"}'])
def test_no_password_is_taken_from_the_command_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    written('federation = "a"\n[broker]\nusername = "u"')
    assert main(["status", "--set", option]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"fedmq status: --set {option.partition('=')[0]}: no password is taken from the command line"
    )
    assert "set broker.password_file, or set FEDMQ_BROKER__PASSWORD in the environment" in said
    assert "hunter2" not in said
    assert main(["status", "--set", "broker.password:hunter2"]) == 2
    assert "hunter2" not in capsys.readouterr().err


def test_a_secret_is_in_no_representation() -> None:
    settings = load_settings(None, ["federation=a", "broker.username=u"], {"FEDMQ_BROKER__PASSWORD": "hunter2"})
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("command", [["aggregator"], ["client", "--client-id", "a"], ["status"], ["stop"], ["export"]])
def test_on_the_command_line_mistakes_are_exit_code_2_and_no_traceback(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    written('federation = "a"\n[plan]\nlearning_rat = 0.1\nbatch_size = 0')
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fedmq {command[0]}: ")
    assert len(said.splitlines()) == 2
    assert all(line.startswith(f"fedmq {command[0]}: ") for line in said.splitlines())
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "command",
    [
        ["aggregator"],
        ["client", "--client-id", "a"],
        ["status"],
        ["stop"],
        ["release", "a"],
        ["export"],
        ["check", "t"],
    ],
)
def test_on_the_command_line_a_section_that_does_not_exist_is_an_error(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written('federation = "a"')
    monkeypatch.setenv("FEDMQ_BROKR__USERNAME", "x")
    assert main(command) == 2
    said = "FEDMQ_BROKR__USERNAME: brokr: unknown key; did you mean 'broker'?"
    assert capsys.readouterr().err == f"fedmq {command[0]}: {said}\n"


def test_on_the_command_line_a_federation_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 2
    advice = "there is no federation.toml here; name one with --config, or give --federation NAME"
    assert capsys.readouterr().err == f"fedmq status: {advice}\n"


def test_on_the_command_line_broker_and_federation_go_before_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    written('federation = "a"\n[broker]\nurl = "mqtt://nobody.invalid"')
    assert main(["stop", "--federation", "b", "--broker", "mqtt://127.0.0.1:1"]) == 2
    assert f"run folder {Path.cwd()}/runs/b: no aggregator has worked there" in capsys.readouterr().err
    assert main(["status", "--broker", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("fedmq status: --broker: 'nonsense' is not the url of an MQTT broker; ")
    assert main(["status", "--federation", "a b"]) == 2
    assert "fedmq status: --federation: found 'a b', expected: 1 to 64 of" in capsys.readouterr().err
    assert main(["status", "--set", "broker.url=nonsense"]) == 2
    assert "fedmq status: --set: broker.url: 'nonsense' is not the url" in capsys.readouterr().err


@pytest.mark.parametrize("account", ["aggregator", "dev-1"])
def test_nobody_looks_at_a_federation_with_the_login_of_one_who_works_in_it(
    account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written(f'federation = "a"\n[broker]\nurl = "mqtt://127.0.0.1:1"\nusername = "a.{account}"')
    assert main(["status"]) == 2
    assert f"broker.username 'a.{account}' is the login of whom you want to look at" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["client"], ["check", "task.py"]])
def test_nobody_is_a_device_with_the_login_of_the_aggregator(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written('federation = "a"\n[broker]\nurl = "mqtt://127.0.0.1:1"\nusername = "a.aggregator"')
    assert main([*command, "--client-id", "dev-1", "--config", str(path)]) == 2
    assert "take the device's own bundle" in capsys.readouterr().err


def test_a_login_that_was_not_provisioned_is_nobodys() -> None:
    for username in ("a", "b.aggregator", "aggregator", "a."):
        assert load_settings(None, ["federation=a", f"broker.username={username}"], {}).account is None
    assert load_settings(None, ["federation=a"], {}).account is None


def test_the_settings_page_is_that_of_the_settings() -> None:
    written = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings_page.page(), "write it again: python -m tests.settings_page > docs/settings.md"
