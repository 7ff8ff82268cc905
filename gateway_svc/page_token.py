"""Page tokens: opaque to clients, and good only for the call that they continue."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from gateway_svc.errors import RequestRefusedError

# The end of the year 9999, where PostgreSQL's and Python's calendars still meet.
LAST_MS = 253_402_300_799_999


def encode(call: Sequence[object], position: Sequence[int | str]) -> str:
    """Return a token for where a call goes on; ``call`` is what the next page must be asked with again.

    Numbers in ``position`` are epoch milliseconds.
    """
    return base64.urlsafe_b64encode(orjson.dumps([_digest(call), *position])).decode()


def decode(token: str, call: Sequence[object], types: Sequence[type[int] | type[str]]) -> list[Any]:
    """Return the position that :func:`encode` put in. Raises RequestRefusedError.

    A client may have made the token itself: types and times are checked here, strings by the caller.
    """
    try:
        digest: object
        position: list[Any]
        digest, *position = orjson.loads(base64.b64decode(token, b"-_", validate=True))
    except (ValueError, TypeError) as error:
        raise malformed() from error
    times_ms = [value for value in position if isinstance(value, int)]
    if [type(value) for value in position] != list(types) or not all(0 <= value <= LAST_MS for value in times_ms):
        raise malformed()
    if digest != _digest(call):
        raise RequestRefusedError(
            "page_token belongs to a call with other symbols or times: ask with those, or without the token"
        )
    return position


def malformed() -> RequestRefusedError:
    """Return the error for what is no token of this gateway."""
    return RequestRefusedError(
        "page_token is not one that this gateway gave: send next_page_token as it came, or none to start anew"
    )


def _digest(call: Sequence[object]) -> str:
    return hashlib.sha256(orjson.dumps(list(call))).hexdigest()[:16]
