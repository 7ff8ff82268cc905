"""The two ways in which messages that a consumer pushes reach us: read by native code, or by nats-py.

nats-py spends twenty times the processor time on each, and can do TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import ParseResult

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from sentimesh.native import LogReader

# The longest wait for the next message.
WAIT_SECONDS = 30.0
# Stored subject, sequence number in the stream, data.
Batch = list[tuple[str, int, bytes]]


class Pushed(Protocol):
    """What a consumer pushes to an inbox."""

    async def read(self, max_messages: int, through_sequence: int) -> Batch:
        """Return the next messages up to and with that sequence; fewer than asked for only at the end, then none.

        Raises OSError, TimeoutError included.
        """
        ...


@contextlib.asynccontextmanager
async def listening(client: Client, inbox: str) -> AsyncIterator[Pushed]:
    """Listen on the inbox from now on: with native code where the client's connection is plain TCP.

    Raises OSError or nats.errors.Error. Who does not read for ten seconds may be disconnected by the broker.
    """
    url = client.connected_url
    reader = await _native_reader(url, inbox) if url is not None and url.scheme == "nats" else None
    if reader is not None:
        try:
            yield PushedToNative(reader)
        finally:
            reader.close()
        return
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    # Without limits: the broker waits for our answers to its flow control.
    subscription = await client.subscribe(inbox, cb=arrived.put, pending_msgs_limit=-1, pending_bytes_limit=-1)
    try:
        yield PushedToClient(arrived)
    finally:
        await subscription.unsubscribe()


async def _native_reader(url: ParseResult, inbox: str) -> LogReader | None:
    """Return a reader that listens, None where the server wants TLS."""
    reader = await asyncio.to_thread(LogReader, url.hostname or "", url.port or 4222, WAIT_SECONDS)
    try:
        info = orjson.loads(reader.info)
        if info.get("tls_required"):
            reader.close()
            return None
        await asyncio.to_thread(reader.subscribe, _introduction(url, bool(info.get("auth_required"))), inbox)
    except ValueError as error:
        raise ConnectionError("what listens there is no NATS server") from error
    except BaseException:
        # Also when this task is cancelled: the thread would wait on.
        reader.close()
        raise
    return reader


def _introduction(url: ParseResult, auth_required: bool) -> str:
    """Return the argument of CONNECT with the credentials that nats-py takes from the URL."""
    options: dict[str, object] = {
        "verbose": False,
        "pedantic": False,
        "lang": "sentimesh",
        "version": "1",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        "name": "sentimesh read back",
    }
    # Without being asked for any, nats-py gives none, and that decides the account.
    if auth_required and url.username is not None:
        if url.password is None:
            options["auth_token"] = url.username
        else:
            options |= {"user": url.username, "pass": url.password}
    return orjson.dumps(options).decode()


class PushedToNative:
    """Over a connection of its own; threads wait for it."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def read(self, max_messages: int, through_sequence: int) -> Batch:
        """See :class:`Pushed`."""
        return await asyncio.to_thread(self._reader.read, max_messages, through_sequence)


class PushedToClient:
    """Over the client's connection, message by message."""

    def __init__(self, arrived: asyncio.Queue[Msg]) -> None:
        self._arrived = arrived
        self._delivered = 0
        self._is_done = False

    async def read(self, max_messages: int, through_sequence: int) -> Batch:
        """See :class:`Pushed`."""
        batch: Batch = []
        while not self._is_done and len(batch) < max_messages:
            message = await self._next()
            sequence, number, pending = _delivery(message.reply)
            if number != self._delivered + 1:
                # The client had connected anew meanwhile.
                raise ConnectionError(f"messages before delivery {number} were lost")
            self._delivered = number
            if sequence <= through_sequence:
                batch.append((message.subject, sequence, message.data))
            self._is_done = not pending or sequence >= through_sequence
        return batch

    async def _next(self) -> Msg:
        """Return the next message of the stream; heartbeats are none, flow control goes on after an answer."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            if self._arrived.empty():
                message = await asyncio.wait_for(self._arrived.get(), deadline - time.monotonic())
            else:
                message = self._arrived.get_nowait()
            if message.reply.startswith("$JS.ACK."):
                return message
            if message.reply:
                await message.respond(b"")


def _delivery(reply: str) -> tuple[int, int, int]:
    """Return a message's number in the stream, its number among what was delivered, and how many are still to come.

    ``$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<time>.<pending>``; newer servers may put a domain
    and an account before the stream and anything after the end.
    """
    parts = reply.split(".")
    first = 5 if len(parts) == 9 else 7
    return int(parts[first]), int(parts[first + 1]), int(parts[first + 3])
