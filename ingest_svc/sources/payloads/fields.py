"""Reading JSON objects that others made: what is missing or of the wrong type is named."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sentimesh.errors import MalformedMessageError

INT32_MAX = 2**31 - 1
# Ids become message ids, keys and links.
_IDENTIFIER = re.compile(r"[!-~]{1,128}")


class Fields:
    """A JSON object and where it sits in the payload."""

    def __init__(self, value: object, path: str) -> None:
        """Raise MalformedMessageError unless ``value`` is an object."""
        if not isinstance(value, dict):
            raise MalformedMessageError(f"{path} is {_kind(value)}, expected an object")
        self._value: dict[str, Any] = value
        self._path = path

    def fail(self, name: str, expected: str) -> MalformedMessageError:
        """Return the error for a field that is missing or of the wrong type."""
        value = self._value.get(name)
        found = "missing" if value is None else _kind(value)
        return MalformedMessageError(f"{self._path}.{name} is {found}, expected {expected}")

    def has(self, name: str) -> bool:
        """Return whether a field is there and not null."""
        return self._value.get(name) is not None

    def text(self, name: str) -> str:
        """Return a string; empty when absent or null."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, str):
            raise self.fail(name, "a string")
        return value or ""

    def flag(self, name: str) -> bool:
        """Return whether a field is true."""
        return self._value.get(name) is True

    def identifier(self, name: str, *, required: bool = True) -> str:
        """Return an id (1 to 128 printable ASCII characters, or an integer); empty when absent and not required."""
        value = self._value.get(name)
        if (value is None or value == "") and not required:
            return ""
        if not isinstance(value, str | int) or isinstance(value, bool) or not _IDENTIFIER.fullmatch(str(value)):
            raise self.fail(name, "an id")
        return str(value)

    def count(self, name: str) -> int:
        """Return a count clamped to 0 to 2^31 - 1; zero when absent or null."""
        value = self._value.get(name)
        if value is None:
            return 0
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.fail(name, "a number")
        return int(min(max(value, 0), INT32_MAX))

    def time_ms(self, name: str, *, required: bool = True) -> int:
        """Return an ISO 8601 time (UTC when it names no zone) or epoch seconds as epoch milliseconds; 0 when absent."""
        value = self._value.get(name)
        if value is None and not required:
            return 0
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                raise self.fail(name, "an ISO 8601 time") from None
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e11:
            raise self.fail(name, "a time")
        return round(value * 1000)

    def object(self, name: str) -> Fields | None:
        """Return an object inside this one; None when absent or null."""
        value = self._value.get(name)
        return None if value is None else Fields(value, f"{self._path}.{name}")

    def objects(self, name: str) -> list[Fields]:
        """Return a list of objects inside this one; empty when absent or null."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, list):
            raise self.fail(name, "a list")
        return [Fields(item, f"{self._path}.{name}[{index}]") for index, item in enumerate(value or ())]


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
