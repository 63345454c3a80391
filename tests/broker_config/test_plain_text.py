"""Who works over a network without TLS hears once what that means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmq import Aggregator, EdgeClient, Trained
from fedmq.broker_config.plain_text import in_plain_text
from fedmq.broker_config.settings import BrokerSettings
from fedmq.settings import Settings, load_settings

ELSEWHERE = "mqtt://192.0.2.2:1898"


@pytest.mark.parametrize(
    "url", ["mqtts://192.0.2.2", "mqtt://127.0.0.1", "mqtt://127.9.9.9:1", "mqtt://[::1]:1883", "mqtt://localhost"]
)
def test_with_tls_or_on_this_machine_nothing_is_said(url: str) -> None:
    assert in_plain_text(BrokerSettings(url=url)) is None


@pytest.mark.parametrize("url", [ELSEWHERE, "mqtt://broker", "mqtt://localhost.example.org", "mqtt://[2001:db8::1]"])
def test_what_can_be_read_is_named_and_a_password_too(url: str) -> None:
    open_to_all = in_plain_text(BrokerSettings(url=url))
    assert open_to_all is not None
    assert f"on the way to {url}: others on that network can read models, updates and statuses" in open_to_all
    assert "password" not in open_to_all
    with_password = in_plain_text(BrokerSettings(url=url, username="ada", password="hunter2"))
    assert with_password == f"{open_to_all} They read the password of 'ada' too, and can log in with it."


def client(settings: Settings) -> None:
    device = EdgeClient(settings, "dev-1", train=lambda weights, plan: Trained(weights, num_samples=1))
    device.ask_to_stop()
    device.run()


def aggregator(settings: Settings) -> None:
    server = Aggregator(settings)
    server.ask_to_stop()
    server.run()


@pytest.mark.parametrize("start", [client, aggregator])
def test_a_client_and_an_aggregator_say_it_once_at_the_start(
    start: Callable[[Settings], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    save_file({"w": np.zeros(4, np.float32)}, "weights.safetensors")
    for url, times in ((ELSEWHERE, 1), ("mqtt://127.0.0.1:1", 0)):
        caplog.clear()
        start(load_settings(None, ["federation=f", f"broker.url={url}", "aggregator.init=weights.safetensors"], {}))
        said = [record.getMessage() for record in caplog.records if "nothing is encrypted" in record.getMessage()]
        assert len(said) == times
