"""A broker that is not to be trusted: it has the real one's name and certificate, and stands before it.

It reads every packet between a client and Mosquitto. What it puts in has QoS 0, so that it needs no packet ids; what it
takes away, it acknowledges, as a broker would that loses it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from paho.mqtt.packettypes import PacketTypes

from fedmq.transport.link import Message
from tests.hostile_broker.malice import Malice
from tests.hostile_broker.packets import Connect, Packet, Publish, connect_of, puback, publish_of, read_packet
from tests.system.processes import PATIENCE

__all__ = ["HostileBroker"]


class HostileBroker:
    """In a thread of its own; a context manager.

    Args:
        root: the provisioned folder: as the broker it has every certificate that clients show it.
        port: where clients look for the broker.
        behind: where Mosquitto is.
        malice: what is done to messages.

    Attributes:
        failure: what went wrong in it; None if nothing did.

    """

    def __init__(self, root: Path, port: int, behind: int, malice: Malice) -> None:
        self.failure: BaseException | None = None
        self._root = root
        self._port = port
        self._behind = behind
        self._malice = malice
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="hostile broker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.failure is not None and error is None:
            raise self.failure

    def cut_all(self) -> None:
        """Break every connection, as a broker does that is started again."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # raised again in the thread that owns this object
            self.failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._root / "broker" / "ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._root / "broker" / "identity.pem")
        server = await asyncio.start_server(self._meet, "127.0.0.1", self._port, ssl=context)
        self._ready.set()
        async with server:
            await self._stop.wait()
            self._cut_all()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            await asyncio.wait(others, timeout=PATIENCE) if others else None

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._between(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two is gone
        except Exception as error:
            self.failure = error
        finally:
            writer.transport.abort()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await read_packet(reader)
        connect = connect_of(hello)
        account = connect.username.partition(".")[2]
        bundle = self._root / (account if account in ("aggregator", "operator") else f"devices/{account}")
        context = ssl.create_default_context(cafile=str(bundle / "ca.pem"))
        context.load_cert_chain(bundle / "identity.pem")
        inner_reader, inner = await asyncio.open_connection(
            "127.0.0.1", self._behind, ssl=context, server_hostname="127.0.0.1"
        )
        if connect.will_payload:
            self._malice.saw(Message(connect.will_topic, connect.will_payload))
        inner.write(hello.encode())
        self._writers |= {writer, inner}
        try:
            up = asyncio.create_task(self._carry(reader, inner, writer, connect, account, upwards=True))
            down = asyncio.create_task(self._carry(inner_reader, writer, inner, connect, account, upwards=False))
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()
            for task in (up, down):
                with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                    await task
        finally:
            self._writers -= {writer, inner}
            inner.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        connect: Connect,
        account: str,
        *,
        upwards: bool,
    ) -> None:
        while True:
            packet = await read_packet(reader)
            if packet.kind != PacketTypes.PUBLISH:
                to.write(packet.encode())
            elif self._malice.cuts():
                return
            else:
                self._deliver(packet, to, back, connect, account, upwards=upwards)
            await to.drain()

    def _deliver(
        self,
        packet: Packet,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        connect: Connect,
        account: str,
        *,
        upwards: bool,
    ) -> None:
        publish = publish_of(packet, mqtt5=connect.mqtt5)
        message = Message(publish.topic, publish.payload)
        if upwards:
            self._malice.saw(message)
        delivery = self._malice.treat(message, account)
        for one in delivery.instead:
            made = Publish(one.topic, one.payload).at_qos_0(retain=publish.retain if upwards else False)
            to.write(made.encode(mqtt5=connect.mqtt5))
        if delivery.passes:
            to.write(packet.encode())
        elif publish.qos:
            back.write(puback(publish.packet_id))
