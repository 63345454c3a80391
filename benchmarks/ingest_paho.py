"""The stock subscriber that ingest.py compares with: paho as its documentation uses it, and a count.

python benchmarks/ingest_paho.py PORT TOPIC PROGRESS_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ingest_wire import Progress
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    port, topic, path = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    progress = Progress(path)
    count = 0

    def on_message(client: Client, userdata: Any, message: MQTTMessage) -> None:
        nonlocal count
        count += 1
        progress.set(count)

    def on_connect(client: Client, *_: Any) -> None:
        client.subscribe(topic, qos=1)

    def on_subscribe(*_: Any) -> None:
        print("ready", flush=True)

    client = Client(CallbackAPIVersion.VERSION2, "bare")
    client.on_message = on_message
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main()
