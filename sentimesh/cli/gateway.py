"""What the commands that ask the gateway share."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import grpc
import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from gateway_svc.service import STORAGE_UNAVAILABLE
from sentimesh.errors import InvalidSymbolError, SentimeshError
from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceStub

if TYPE_CHECKING:
    from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceAsyncStub

TIMEOUT_SECONDS = 10.0
DEFAULT_ADDRESS = "127.0.0.1:50055"
Address = Annotated[str, typer.Option(help="host:port of the gateway.")]
_AGO = re.compile(r"([0-9]{1,7})([smhdw])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class GatewayError(SentimeshError):
    """The gateway does not answer, or cannot."""


class MomentError(SentimeshError, ValueError):
    """What is no time."""


@asynccontextmanager
async def gateway(address: str) -> AsyncIterator[SentimentGatewayServiceAsyncStub]:
    """Give a stub whose errors are sentences: GatewayError, or InvalidSymbolError for a symbol that is refused."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            yield SentimentGatewayServiceStub(channel)
        except grpc.aio.AioRpcError as error:
            raise _sentence(error, address) from error


def _sentence(error: grpc.aio.AioRpcError, address: str) -> SentimeshError:
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return InvalidSymbolError(error.details() or f"the gateway at {address} does not know the symbol")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidSymbolError(error.details() or f"the gateway at {address} refuses the question")
        case grpc.StatusCode.UNAVAILABLE if STORAGE_UNAVAILABLE in tuple(error.trailing_metadata() or ()):
            return GatewayError(f"the gateway at {address} says: {error.details()}")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return GatewayError(
                f"no gateway answers at {address}: start one with `sentimesh up`, or name another with --address"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return GatewayError(f"what answers at {address} is not the gateway: give its host:port with --address")
        case code:
            return GatewayError(f"the gateway at {address} failed with {code.name}: {error.details()}; see its log")


def to_json(message: Message, *, indent: int | None = 2) -> str:
    """Return a message as proto3 JSON with original field names, every field shown; ``indent`` None: in one line."""
    return MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=indent
    )


def moment_ms(text: str, now_ms: int) -> int:
    """Return the epoch milliseconds, at least 1, of ``24h`` (that long ago; s, m, h, d or w) or of an ISO 8601 time.

    A time without a zone is UTC. Raises MomentError.
    """
    if found := _AGO.fullmatch(text):
        return max(1, now_ms - int(found[1]) * _UNIT_MS[found[2]])
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise MomentError(
            f"{text[:40]!r} is no time: give how long ago, such as 24h or 7d, or an ISO time such as 2026-11-24T10:30Z"
        ) from None
    aware = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    # The gateway takes 0 for "not given".
    return max(1, round(aware.timestamp() * 1000))


def show_time(epoch_ms: int) -> str:
    """Return a time as people read it, UTC, to the minute."""
    return f"{dt.datetime.fromtimestamp(epoch_ms / 1000, dt.UTC):%Y-%m-%d %H:%M}"


def new_table(left: Sequence[str], right: Sequence[str], caption: str) -> Table:
    """Return an empty table narrow enough for 80 columns: headings of columns that are never cut, aligned so."""
    table = Table(box=None, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def show(table: Table) -> None:
    """Print a table: as wide as the terminal, and wide where there is none, so that links stay whole."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 160))
    console.print(table)
