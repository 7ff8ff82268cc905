"""The Rust extension. Batches in, batches out; the GIL is released around the work."""

from collections.abc import Sequence
from typing import final

__all__ = [
    "BatchResult",
    "LogReader",
    "NearDuplicateBatch",
    "NearDuplicateReads",
    "NearDuplicateTable",
    "SlideCount",
    "SymbolExtractor",
    "WindowStats",
    "WindowStore",
    "has_vnni",
    "simhash64",
]

def has_vnni() -> bool:
    """Tell whether the processor multiplies and adds int8 in one instruction (x86: AVX512-VNNI or AVX-VNNI)."""

def simhash64(texts: Sequence[str]) -> list[int]:
    """Return the 64-bit SimHash of each text's words (unsigned): letters and digits, in compatibility form, lower case.

    Links, mentions and the ``RT @name:`` in front do not count. A text with nothing left to hash gets 0.
    """

@final
class NearDuplicateBatch:
    """Posts that are asked about together; its length is the number of those that are to be held."""

    @property
    def writes(self) -> bytes:
        """What the script in Redis is told to write (wire.rs); empty when all answers are known."""
    def __len__(self) -> int: ...

@final
class NearDuplicateReads:
    """What is to be read from Redis for a batch."""

    @property
    def request(self) -> bytes:
        """What the script in Redis is told to return (wire.rs)."""

@final
class NearDuplicateTable:
    """Posts of about the last ``ttl_ms`` by event time, with exact recall within ``max_distance`` bits (0 to 7).

    The 64 bits are cut into ``max_distance + 1`` blocks: two fingerprints that differ in at most
    ``max_distance`` bits agree in at least one block (pigeonhole principle).

    Of three or more posts of one fingerprint in a cell of time (1/32 of ``ttl_ms``, rounded up to milliseconds) the
    first two stand for all: what follows them gets the answer of the second, and is not held once that is known.
    """

    def __new__(cls, max_distance: int = 3, ttl_ms: int = 3_600_000) -> NearDuplicateTable: ...
    def batch(
        self, ids: Sequence[str], fingerprints: Sequence[int], sequences: Sequence[int], timestamps_ms: Sequence[int]
    ) -> NearDuplicateBatch:
        """Put a batch together. Sequences and times are brought into 0 to 2**48 - 1.

        Raises ValueError when the four sequences differ in length.
        """
    def remember(self, batch: NearDuplicateBatch) -> None:
        """Hold the batch's posts, as if this process were the only one."""
    def reads(self, batch: NearDuplicateBatch) -> NearDuplicateReads:
        """Say which buckets in Redis are to be read, and from where, instead."""
    def read(self, reads: NearDuplicateReads, reply: Sequence[bytes]) -> None:
        """Hold what the script returned, one value a bucket. Raises ValueError for what are no buckets."""
    def answers(self, batch: NearDuplicateBatch) -> list[int | None]:
        """Return for each post the fingerprint of its original, or None, once the batch's posts are held.

        That is the first to arrive of the posts of other ids that are within ``max_distance`` bits, not more than
        ``ttl_ms`` away, and arrived before this one did, or in the same batch with a smaller sequence. So asking twice
        gives the same answer twice.
        """
    def forget(self) -> None:
        """Read every bucket again from its beginning, and write what stands for floods again: Redis lost something."""
    def __len__(self) -> int: ...

@final
class LogReader:
    """Reads what a JetStream consumer pushes to an inbox, over a plain TCP connection of its own.

    It connects and reads the server's greeting. Every wait for the server ends after ``timeout_seconds`` (0.001 to
    86,400) with a TimeoutError; everything else that goes wrong with it is a ConnectionError, after which the reader is
    of no use. One thread at a time; others wait.
    """

    def __new__(cls, host: str, port: int, timeout_seconds: float) -> LogReader: ...
    @property
    def info(self) -> str:
        """The server's greeting, a JSON object: does it require TLS (then this is the wrong reader) or credentials?"""
    def subscribe(self, connect_json: str, inbox: str) -> None:
        """Introduce itself with that JSON object and subscribe; the consumer is to be created after this.

        Raises ConnectionError with the server's words when it refuses, ValueError for what is not one line or no
        subject.
        """
    def read(self, max_messages: int, through_sequence: int) -> list[tuple[str, int, bytes]]:
        """Return the next messages up to and with that number in the stream, as (subject, number, data).

        Waits until there are ``max_messages`` (1 or more). Fewer at the end, then none. The end is a message of that or
        a higher number, or the last that the consumer has. Flow control and the server's pings are answered meanwhile.
        """
    def close(self) -> None:
        """Close the connection; a read that waits in another thread ends with a ConnectionError."""

@final
class SymbolExtractor:
    """Finds the tracked assets that a text names.

    ``assets``: (symbol, names, is_english_word) each. A symbol counts as ``$BTC``, ``#btc``, in a pair
    (``BTC/USD``, ``BTC-USDT``, ``BTCUSDT``), or as a word ``BTC``/``btc``; names as words in any case and as
    hashtags. A symbol or name that is also an English word counts only with ``$`` or ``#``, in a pair, directly
    before a context word ("link token"), or, written as a name (``LINK``, ``Ripple``) and not in the midst of capitals,
    within six words of a context word, a dollar amount or another mention. Of names that overlap the longest counts
    ("bitcoin cash" is not BTC); both sides of ETH/BTC do, but money in a pair does not. Links, domain names and
    @mentions never count. Raises ValueError or TypeError that says which asset or context word is wrong.
    """

    def __new__(
        cls, assets: Sequence[tuple[str, Sequence[tuple[str, bool]], bool]], context_words: Sequence[str]
    ) -> SymbolExtractor: ...
    def extract(self, texts: Sequence[str]) -> list[list[str]]:
        """Return each text's symbols, each once, in order of first appearance."""

@final
class WindowStats:
    """One symbol over one span of time."""

    @property
    def symbol(self) -> str: ...
    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def polarity(self) -> float:
        """Mean polarity weighted by engagement_weight * credibility_score; 0.0 without weight."""
    @property
    def credibility(self) -> float:
        """Mean credibility; 0.0 without posts."""
    @property
    def post_count(self) -> int: ...
    @property
    def unique_authors(self) -> int: ...
    @property
    def platform_counts(self) -> dict[str, int]: ...
    @property
    def revision(self) -> int:
        """0 for a window's first closing, and for live reads."""

@final
class SlideCount:
    """A sliding window that holds at least ``spike_min_mentions`` and has ten minutes of history before it.

    It comes when the clock passes its end, and again for each post that is accepted after that and belongs in it.
    """

    @property
    def symbol(self) -> str: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def mention_count(self) -> int: ...
    @property
    def baseline_rate(self) -> float:
        """Mentions per sliding window over the baseline span before it, or what the store still knows of it."""
    @property
    def platform_counts(self) -> dict[str, int]: ...
    @property
    def late(self) -> bool:
        """Whether it comes because of a post after its end; its end may then lie before ends that came earlier."""

@final
class BatchResult:
    @property
    def statuses(self) -> list[str]:
        """One a message: accepted, duplicate, late, low_credibility, untracked or malformed."""
    @property
    def errors(self) -> dict[int, str]:
        """Index of a malformed message to what is wrong with it."""
    @property
    def events(self) -> list[tuple[int, WindowStats | SlideCount]]:
        """Index of the message that brought it about, and the window or slide.

        What the message's time brings about comes first, in order of time, then the slides that the message is late
        for, in order of time.
        """

@final
class WindowStore:
    """Rings of slices, one a tracked symbol, from which every window is read (ARCHITECTURE, time and windows).

    Tumbling windows start at multiples of ``window_ms`` and close, for every symbol and also without posts, at their
    end plus ``allowed_lateness_ms``; the first is the one that contains the first time seen, or with ``start_ms`` the
    first that does not start before it. Spans are multiples of ``slice_ms``, a ring holds at most 100,000 slices;
    ValueError says which does not fit.

    A slide's baseline begins with the first time seen. A store that is restored from a log which goes back further is
    given ``history_start_ms``, the time from which it has read the log: what lies between that and its first post was
    silence. With what arrived since the start of the window ``span_ms`` before the clock it gives the same slides as
    one that never stopped.
    """

    def __new__(
        cls,
        symbols: Sequence[str],
        *,
        window_ms: int = 300_000,
        slice_ms: int = 10_000,
        span_ms: int = 7_200_000,
        allowed_lateness_ms: int = 0,
        slide_ms: int = 10_000,
        spike_window_ms: int = 60_000,
        baseline_ms: int = 3_600_000,
        spike_min_mentions: int = 10,
        min_credibility: float = 0.0,
        start_ms: int | None = None,
        history_start_ms: int | None = None,
    ) -> WindowStore: ...
    def add_batch(self, messages: Sequence[bytes], clock_ms: int | None = None) -> BatchResult:
        """Take serialized ScoredPost messages, in order.

        With ``clock_ms`` the clock is moved there first (system clock); with None it follows the largest
        event time seen, post by post (event clock). A post more than five minutes ahead of the system clock is
        malformed. An event-clock jump of more than ``span_ms`` is a hole in a recording: windows go on up to
        ``span_ms`` after the old time and then from the one that contains the new time, where the baseline's history
        starts anew. A post older than ``span_ms`` is late; a younger one whose window is closed is accepted, and
        that window comes again with the next revision before another one closes, at the latest at the end of the batch
        (index of the last message). Slides that have ended and hold an accepted post (at most ``spike_window_ms`` /
        ``slide_ms``, of its symbol only) are evaluated again at once, post by post, so that they do not depend on the
        cut of batches. A second (post_id, symbol) is a duplicate whatever its time. Raises TypeError for a message that
        is not bytes.
        """
    def advance(self, clock_ms: int) -> list[WindowStats | SlideCount]:
        """Move the clock (never back) and return what is due, in order of time."""
    def live(self, symbols: Sequence[str], end_ms: int) -> list[WindowStats]:
        """Read the trailing ``window_ms`` up to ``end_ms``, rounded up to a whole slice, of each symbol.

        Raises ValueError for a symbol that is not tracked.
        """
    @property
    def clock_ms(self) -> int | None:
        """None before the first post or advance."""
