"""Reading the configuration from file and environment, and showing it."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any

import pydantic_settings
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from sentimesh.errors import SettingsError
from sentimesh.settings.file import ROOT_KEY, read_file
from sentimesh.settings.tree import ENVIRONMENT_PREFIX, Settings

CONFIG_VARIABLE = "SENTIMESH_CONFIG"


def source_of(path: Path | None) -> str:
    """Return what :func:`load_settings` reads for this path, for a person to read."""
    named = path or os.environ.get(CONFIG_VARIABLE)
    return str(named) if named else "defaults and environment"


def load_settings(path: Path | None) -> Settings:
    """Read a configuration file, or the one that SENTIMESH_CONFIG names, or only defaults and environment.

    Raises SettingsError naming the file, the key path, the reason and what to do.
    """
    if path is None and (named := os.environ.get(CONFIG_VARIABLE)):
        path = Path(named)
    tree = read_file(path) if path is not None else {}
    _refuse_unknown_variables()
    try:
        return Settings(**tree)
    except ValidationError as error:
        # From None: the original carries the values.
        raise _refused(error.errors(include_input=False, include_url=False)[0], path) from None
    except pydantic_settings.SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        name = f"{ENVIRONMENT_PREFIX}{found.group(1).upper()}" if found else f"a variable {ENVIRONMENT_PREFIX}…"
        raise SettingsError(f'{name}: Input should be JSON; correct the variable, as in \'["BTC", "ETH"]\'') from None


def _refuse_unknown_variables() -> None:
    """Sections refuse unknown keys themselves; a variable for an unknown section would pass unseen."""
    for name in os.environ:
        if name.upper().startswith(ENVIRONMENT_PREFIX):
            section = name[len(ENVIRONMENT_PREFIX) :].split("__")[0].lower()
            if section not in Settings.model_fields:
                raise SettingsError(f"{name}: there is no such key{_near(section, Settings)}; unset or rename it")


def _refused(details: ErrorDetails, path: Path | None) -> SettingsError:
    location = [str(part) for part in details["loc"]]
    key = ".".join([ROOT_KEY, *location])
    variable = next(
        (
            name
            for length in range(len(location), 0, -1)
            for name in [ENVIRONMENT_PREFIX + "__".join(location[:length]).upper()]
            if os.environ.get(name)
        ),
        None,
    )
    match details["type"]:
        case "extra_forbidden" | "invalid_key":
            reason = f"there is no such key{_near(location[-1], _section(location[:-1]))}"
        case "model_type" | "model_attributes_type":
            reason = "Input should be a section, a mapping of keys to values"
        case _:
            reason = details["msg"].removeprefix("Value error, ")
    where = f"{variable} for" if variable else f"{path}:" if path else "configuration:"
    return SettingsError(f"{where} {key}: {reason}; correct it (`sentimesh config show` prints every key)")


def _section(location: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for part in location:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return model


def _near(key: str, section: type[BaseModel]) -> str:
    close = difflib.get_close_matches(key, section.model_fields, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def masked(settings: Settings) -> dict[str, Any]:
    """Return the tree as plain values, with *** for every secret that is set."""
    values: dict[str, Any] = settings.model_dump(mode="json")

    def mask(node: Any, original: Any) -> Any:
        if isinstance(original, SecretStr):
            return "***"
        if isinstance(node, dict):
            return {key: mask(value, getattr(original, key, None)) for key, value in node.items()}
        return node

    return {ROOT_KEY: {key: mask(value, getattr(settings, key)) for key, value in values.items()}}
