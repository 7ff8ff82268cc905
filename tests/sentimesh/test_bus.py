"""Reading a stream back from a real nats-server: over plain TCP in native code, over TLS with nats-py."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nats.js.errors
import pytest
import stamina
from pydantic import SecretStr

from sentimesh import read_back
from sentimesh.bus import RAW, SCORED, Bus, BusUnavailableError, Topic
from sentimesh.embedded import HOST, free_port, nats_binary
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import ScoredPost
from sentimesh.read_back import PushedToClient, PushedToNative, listening

Read = list[tuple[str, int, bytes]]


@dataclass
class Broker:
    """A nats-server of a test's own and a bus on it."""

    bus: Bus
    process: asyncio.subprocess.Process
    config: Path

    async def start(self) -> None:
        """Start it again after its death."""
        self.process = await started(self.config)


async def started(config: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(nats_binary(), "-c", config, stderr=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def broker_with(folder: Path, config: str, credentials: str = "", scheme: str = "nats") -> AsyncIterator[Broker]:
    port = free_port()
    path = folder / "nats.conf"
    path.write_text(f'host: {HOST}\nport: {port}\njetstream {{ store_dir: "{folder}" }}\n{config}\n')
    process = await started(path)
    broker: Broker | None = None
    try:
        async for attempt in stamina.retry_context(on=OSError, attempts=None, timeout=60, wait_max=0.05):
            with attempt:
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
        async with Bus(SecretStr(f"{scheme}://{credentials}{HOST}:{port}"), partitions=4) as bus:
            broker = Broker(bus, process, path)
            yield broker
    finally:
        process = broker.process if broker else process
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a self-signed certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The configuration of a server that requires TLS; this process trusts it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    return f'tls {{ cert_file: "{certificate}/cert.pem", key_file: "{certificate}/key.pem" }}'


@pytest.fixture(params=["plain", "tls"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """One of either kind."""
    config = request.getfixturevalue("tls") if request.param == "tls" else ""
    async with broker_with(tmp_path, config) as broker:
        yield broker


async def send(bus: Bus, *payloads: str) -> None:
    await bus.publish_confirmed([("social.raw.twitter", RawPost(payload=p.encode()), p, {}) for p in payloads])


async def send_many(bus: Bus, count: int, size: int) -> None:
    """Fill the stream, waiting for thousands at a time: a stream takes in no more than ten thousand at once."""
    for first in range(0, count, 5_000):
        for number in range(first, first + 5_000):
            await bus.client.publish("social.raw.twitter", b"%0*d" % (size, number))
        async for attempt in stamina.retry_context(on=AssertionError, attempts=None, timeout=120, wait_max=0.05):
            with attempt:
                assert (await bus.jetstream.stream_info(RAW.stream)).state.messages == first + 5_000


async def read(
    bus: Bus,
    topic: Topic = RAW,
    through: int = 1 << 40,
    *,
    since: dt.datetime | None = None,
    subjects: tuple[str, ...] = (),
) -> Read:
    return [message async for batch in bus.read_back(topic, since, through, subjects) for message in batch]


def payloads(messages: Read) -> list[str]:
    return [RawPost.FromString(data).payload.decode() for _, _, data in messages]


async def consumers(bus: Bus) -> int:
    return len(await bus.jetstream.consumers_info(RAW.stream))


async def test_what_came_is_read_up_to_a_sequence(broker: Broker) -> None:
    await send(broker.bus, "a", "b", "c", "d")
    messages = await read(broker.bus, through=3)
    assert [(subject, sequence) for subject, sequence, _ in messages] == [("social.raw.twitter", n) for n in (1, 2, 3)]
    assert payloads(messages) == ["a", "b", "c"]
    assert payloads(await read(broker.bus)) == ["a", "b", "c", "d"]
    assert await read(broker.bus, through=0) == []
    assert await consumers(broker.bus) == 0


async def test_a_gap_where_the_last_sequence_would_be_ends_it_as_well(broker: Broker) -> None:
    await send(broker.bus, "a", "b", "c", "d")
    await broker.bus.jetstream.delete_msg(RAW.stream, 3)
    assert payloads(await read(broker.bus, through=3)) == ["a", "b"]


async def test_only_what_came_since_a_time_is_read(broker: Broker) -> None:
    await send(broker.bus, "a", "b")
    since = dt.datetime.now(dt.UTC)
    await send(broker.bus, "c", "d")
    assert payloads(await read(broker.bus, since=since)) == ["c", "d"]
    assert await read(broker.bus, since=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)) == []


async def test_only_the_subjects_asked_for_are_read(broker: Broker) -> None:
    symbols = ["BTC", "ETH", "SOL", "DOGE", "XRP"]
    await broker.bus.publish_confirmed([(f"social.scored.{s}", ScoredPost(), s, {}) for s in symbols * 2])
    everything = await read(broker.bus, SCORED)
    assert [SCORED.published_subject(subject) for subject, _, _ in everything] == [
        f"social.scored.{s}" for s in symbols
    ]
    wanted = ("social.scored.0.*", "social.scored.3.*")
    some = await read(broker.bus, SCORED, subjects=wanted)
    assert some == [m for m in everything if m[0].startswith(("social.scored.0.", "social.scored.3."))]
    assert 0 < len(some) < len(everything)


async def test_an_empty_stream_has_nothing(broker: Broker) -> None:
    assert await read(broker.bus) == []
    assert await consumers(broker.bus) == 0


async def test_fifty_thousand_come_complete_and_in_order(broker: Broker) -> None:
    await send_many(broker.bus, 50_000, 200)
    messages = await read(broker.bus)
    assert [(sequence, int(data)) for _, sequence, data in messages] == [(n + 1, n) for n in range(50_000)]


async def test_who_leaves_early_leaves_nothing_behind(broker: Broker) -> None:
    await send_many(broker.bus, 10_000, 1_000)
    async with contextlib.aclosing(broker.bus.read_back(RAW, None, 1 << 40)) as batches:
        async for batch in batches:
            assert batch[0][1] == 1
            assert await consumers(broker.bus) == 1
            break
    assert await consumers(broker.bus) == 0
    assert len(await read(broker.bus)) == 10_000


async def test_a_server_that_is_killed_in_the_midst_is_one_clear_error(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than is on its way at a time: the server waits for answers after some megabytes.
    await send_many(broker.bus, 50_000, 1_000)
    batches = broker.bus.read_back(RAW, None, 1 << 40)
    count = len(await anext(batches))
    broker.process.kill()
    await broker.process.wait()
    # nats-py hopes for a new connection as long as this.
    monkeypatch.setattr(read_back, "WAIT_SECONDS", 1.0)

    async def rest() -> None:
        nonlocal count
        async for batch in batches:
            count += len(batch)

    with pytest.raises(BusUnavailableError, match=r"SOCIAL_RAW cannot be read back .* nats\.url"):
        await rest()
    assert 0 < count < 50_000


async def test_a_reconnection_that_outlives_the_bus_ends(broker: Broker) -> None:
    """As when its cancellation was swallowed; nats-py tries every server over and over otherwise."""
    broker.process.kill()
    await broker.process.wait()
    async with asyncio.timeout(30):
        await broker.bus.__aexit__(None, None, None)
        with pytest.raises(asyncio.CancelledError):
            await broker.bus.client._select_next_server()


async def test_a_stream_that_is_not_there_is_one_clear_error(broker: Broker) -> None:
    await broker.bus.jetstream.delete_stream(RAW.stream)
    with pytest.raises(BusUnavailableError, match="SOCIAL_RAW cannot be read back") as raised:
        await read(broker.bus)
    assert isinstance(raised.value.__cause__, nats.js.errors.NotFoundError)


@pytest.mark.parametrize(
    ("config", "credentials"),
    [
        ("", ""),
        ("", "somebody:nobody-asks@"),
        ('authorization { user: "us%er", password: "pa+ss" }', "us%er:pa+ss@"),
        ('authorization { token: "to-ken" }', "to-ken@"),
    ],
)
async def test_plain_connections_are_read_in_native_code(tmp_path: Path, config: str, credentials: str) -> None:
    async with broker_with(tmp_path, config, credentials) as broker:
        async with listening(broker.bus.client, broker.bus.client.new_inbox()) as pushed:
            assert isinstance(pushed, PushedToNative)
        await send(broker.bus, "a", "b")
        assert payloads(await read(broker.bus)) == ["a", "b"]


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_connections_with_tls_are_read_with_nats_py(tmp_path: Path, tls: str, scheme: str) -> None:
    async with broker_with(tmp_path, tls, scheme=scheme) as broker:
        async with listening(broker.bus.client, broker.bus.client.new_inbox()) as pushed:
            assert isinstance(pushed, PushedToClient)
        await send(broker.bus, "a", "b")
        assert payloads(await read(broker.bus)) == ["a", "b"]


def test_newer_delivery_subjects_are_understood() -> None:
    for reply in ("$JS.ACK.S.c.1.5.6.7.8", "$JS.ACK.hub.hash.S.c.1.5.6.7.8", "$JS.ACK._.hash.S.c.1.5.6.7.8.token"):
        assert read_back._delivery(reply) == (5, 6, 8)
