"""Lists of bot accounts as others publish them: files and URLs, one id a line or a JSON list."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import stamina

from sentimesh.errors import SentimeshError
from sentimesh.settings import RAW_TOPICS

PLATFORMS = tuple(topic.rpartition(".")[2] for topic in RAW_TOPICS)
# A million ids of X take 20 MB.
LARGEST_BYTES = 32 * 1024 * 1024
REDIRECTS = 3
# "Try again later" among the client errors: time-out, too early, too many requests.
LATER = (408, 425, 429)
# No platform's id holds anything else; a web page that stands where a list was does.
_MEMBER = re.compile(rf"(?:(?:{'|'.join(PLATFORMS)}):)?[\w.-]{{1,80}}")
_EXPECTED = (
    f"expected an author's id such as 123, or one with its platform ({', '.join(PLATFORMS)}) such as twitter:123"
)


class BotListError(SentimeshError):
    """A list of bots cannot be used as it is."""


class BotListUnavailableError(BotListError):
    """A URL does not give its list now; it may later."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a URL is waited for."""

    # Until the next bytes, and until all of them.
    silence_seconds: float = 10.0
    whole_seconds: float = 60.0
    attempts: int = 3


def member(text: str) -> str:
    """Return a listed account, ``{author_id}`` or ``{platform}:{author_id}``. Raises ValueError."""
    if not _MEMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no account: {_EXPECTED}")
    return text


def is_url(source: str) -> bool:
    """Say whether a source is a URL and not the path of a file."""
    return "://" in source


def shown(source: str) -> str:
    """Return a source as it may be shown: a URL without its query, which may hold a key."""
    return source if not is_url(source) else urlsplit(source)._replace(query="", fragment="").geturl()


async def read_list(source: str, patience: Patience | None = None) -> frozenset[str]:
    """Return the accounts that a file or URL lists. Raises BotListError, which names source and line."""
    if is_url(source):
        content = await _fetch(source, patience or Patience())
    else:
        content = await asyncio.to_thread(_read, source)
    return await asyncio.to_thread(parse, content, shown(source))


def parse(content: bytes, name: str) -> frozenset[str]:
    """Return the accounts of a list: a line each, ``#`` begins a comment, or a JSON list of strings or numbers.

    Raises BotListError with ``name`` and the line (of a JSON list: the item) at fault; a list without any account
    is an error as well.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BotListError(f"{name}:{line}: not UTF-8 ({error.reason}); give the list in UTF-8") from None
    found = set()
    for where, item in _json(text, name) if text.lstrip().startswith("[") else _lines(text):
        try:
            found.add(member(item))
        except ValueError as error:
            raise BotListError(f"{name}:{where}: {error}; mend or remove it") from None
    if not found:
        raise BotListError(f"{name}: there is no account in it; give a list with an id a line, or take it out")
    return frozenset(found)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        item = line.partition("#")[0].strip()
        if item:
            yield str(number), item


def _json(text: str, name: str) -> Iterator[tuple[str, str]]:
    try:
        items = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BotListError(f"{name}:{error.lineno}: not a JSON list ({error.msg}); correct it") from None
    for number, item in enumerate(items, 1):
        if not isinstance(item, str | int) or isinstance(item, bool):
            raise BotListError(f"{name}: item {number} is neither text nor a whole number: {_EXPECTED}; correct it")
        yield f" item {number}", str(item)


def _read(path: str) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:
        # The latter two: a ~ without a home, a name with a null byte.
        reason = error.strerror if isinstance(error, OSError) else error
        raise BotListError(f"cannot read {path}: {reason}; name a file that may be read") from error
    if len(content) > LARGEST_BYTES:
        raise _too_large(path)
    return content


async def _fetch(url: str, patience: Patience) -> bytes:
    content = b""
    async for attempt in stamina.retry_context(
        on=BotListUnavailableError, attempts=patience.attempts, timeout=None, wait_initial=0.5
    ):
        with attempt:
            try:
                async with asyncio.timeout(patience.whole_seconds):
                    content = await _get(url, patience.silence_seconds)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                # From None: such an error may quote the URL, which may hold a key.
                raise BotListUnavailableError(
                    f"{shown(url)} does not give its list ({type(error).__name__}): check the URL and its server"
                ) from None
    return content


async def _get(url: str, silence_seconds: float) -> bytes:
    async with (
        httpx.AsyncClient(timeout=silence_seconds, follow_redirects=True, max_redirects=REDIRECTS) as client,
        client.stream("GET", url, headers={"Accept": "text/plain, application/json"}) as response,
    ):
        status = response.status_code
        if not response.is_success:
            kind = BotListUnavailableError if response.is_server_error or status in LATER else BotListError
            raise kind(f"{shown(url)} answers with status {status}: check the URL and its server")
        if response.headers.get("content-type", "").startswith("text/html"):
            raise BotListError(f"{shown(url)} gives a web page: name the URL of the list itself")
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > LARGEST_BYTES:
                raise _too_large(shown(url))
        return bytes(content)


def _too_large(name: str) -> BotListError:
    return BotListError(f"{name} is over {LARGEST_BYTES // 1024**2} MiB: give a shorter list, or several")
