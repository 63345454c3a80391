"""A device on a metered link, whose day is spent."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.slow_link import SlowLink
from tests.system.processes import Federation

pytestmark = pytest.mark.broker

FLOATS = 10_000
BUDGET = 100_000


def test_a_device_sends_no_more_in_a_day_than_it_may_also_after_kill_9(fed: Federation) -> None:
    fed.set(plan__codec="float32", plan__zstd=False, device__daily_uplink=BUDGET)
    save_file({"w": np.zeros(FLOATS, np.float32)}, fed.folder / "weights.safetensors")
    fed.aggregator()
    port = int(fed.settings["broker.url"].rpartition(":")[2])
    with SlowLink(port, bytes_per_second=50e6) as link:
        device = fed.client("ada", "--broker", link.url)
        device.says("paused client=ada")
        device.says("of 100 kB of daily_uplink used today, an update takes 4")
        fed.until(lambda: (fed.status("ada").uplink_today or 0) > 80_000, "the status to say so")
        device.kill()
        again = fed.client("ada", "--broker", link.url)
        again.says("paused client=ada")
        fed.until(lambda: fed.status("ada").uplink_today or 0, "its status")
        assert link.carried <= BUDGET
    fed.until(lambda: fed.read_run().figures["accepted"] == 2, "both updates to be counted")  # 40 kB each
    shown = fed.command("status")
    assert "40 kB an update" in shown.stdout
