"""The configuration file: YAML, with ``${NAME}`` for what the environment has."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from sentimesh.errors import SettingsError

ROOT_KEY = "social_sentiment"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_KEYS = frozenset(
    {
        *("bearer_token", "client_id", "client_secret", "api_id", "api_hash", "bot_token", "api_key", "token"),
        *("url", "dsn", "webhook_url"),
    }
)


class _Loader(yaml.SafeLoader):
    """YAML in which a key comes once and is a string: of two equal keys one would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.value)
            if key in mapping:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} comes twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def read_file(path: Path) -> dict[str, Any]:
    """Return what is under the top-level key, references resolved. Raises SettingsError."""
    try:
        # Not yaml.load's full loader: this one makes plain values only, as safe_load does.
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        # Only our own sentence: the parser's would quote the file.
        problem = getattr(error, "problem", None) if isinstance(error, yaml.constructor.ConstructorError) else None
        raise SettingsError(f"{path}: {problem or 'not YAML'}{line}; correct it") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or set(document) != {ROOT_KEY}:
        raise SettingsError(f"{path}: the one top-level key must be {ROOT_KEY}:; put everything under it")
    tree = document[ROOT_KEY] or {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: {ROOT_KEY} must be a mapping of keys to values; correct it")
    resolved: dict[str, Any] = _resolve(path, tree, ROOT_KEY)
    return resolved


def _resolve(path: Path, node: Any, key_path: str) -> Any:
    """Put the environment's values for ``${NAME}``; a secret must be such a reference, unset means none."""
    if isinstance(node, dict):
        return {key: _resolve(path, value, f"{key_path}.{key}") for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(path, value, f"{key_path}[{index}]") for index, value in enumerate(node)]
    is_secret = key_path.rsplit(".", 1)[-1] in _SECRET_KEYS
    if not isinstance(node, str):
        if is_secret and node is not None:
            raise _literal_secret(path, key_path)
        return node
    names = _REFERENCE.findall(node)
    if is_secret:
        if not _REFERENCE.fullmatch(node):
            raise _literal_secret(path, key_path)
        return os.environ.get(names[0]) or None
    unset = [name for name in names if name not in os.environ]
    if unset:
        raise SettingsError(f"{path}: {key_path}: the environment variable {unset[0]} is not set; set it")
    return _REFERENCE.sub(lambda match: os.environ[match.group(1)], node)


def _literal_secret(path: Path, key_path: str) -> SettingsError:
    name = key_path.removeprefix(f"{ROOT_KEY}.").replace(".", "_").upper()
    return SettingsError(
        f"{path}: {key_path}: secrets come from the environment only; write ${{{name}}} here and set that variable"
    )
