"""LogReader against servers that are none; tests/sentimesh/test_bus.py has it read from a real one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sentimesh.native import LogReader

GREETING = b'INFO {"headers":true}\r\n'
DELIVERY = b"MSG social.raw.x 1 $JS.ACK.S.c.1.7.1.1700000000000000000.3 2\r\nab\r\n"


@contextmanager
def server(*answers: bytes, hang: bool = False) -> Iterator[int]:
    """Send the first, then one each time that something comes in; then close, or stay."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answers[0])
            for answer in answers[1:]:
                connection.recv(65_536)
                connection.sendall(answer)
            if hang:
                over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_messages_come_as_subject_number_and_data() -> None:
    with server(GREETING, b"PONG\r\n" + DELIVERY) as port:
        reader = LogReader("localhost", port, 60)
        assert reader.info == '{"headers":true}'
        reader.subscribe("{}", "_INBOX.x")
        assert reader.read(1, 9) == [("social.raw.x", 7, b"ab")]
        with pytest.raises(ConnectionError, match="closed the connection"):
            reader.read(1, 9)


def test_the_last_one_asked_for_is_the_end() -> None:
    with server(GREETING, b"PONG\r\n" + DELIVERY) as port:
        reader = LogReader("127.0.0.1", port, 60)
        reader.subscribe("{}", "_INBOX.x")
        assert reader.read(5, 6) == []
        assert reader.read(5, 6) == []


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not its protocol: an operation is unknown"),
        (b"\x15\x03\x01\r\n", "not its protocol"),
        (b"INFO {", "closed the connection"),
        (b"-ERR 'maximum connections exceeded'\r\n", "refuses: 'maximum connections exceeded'"),
    ],
)
def test_what_is_no_server_is_a_connection_error(greeting: bytes, problem: str) -> None:
    with server(greeting) as port, pytest.raises(ConnectionError, match=problem):
        LogReader("127.0.0.1", port, 60)


def test_nobody_there_is_a_connection_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match="connection to NATS failed"):
            LogReader("127.0.0.1", unused.getsockname()[1], 60)


def test_a_server_that_says_nothing_is_a_timeout() -> None:
    with server(b"", hang=True) as port, pytest.raises(TimeoutError, match="sent nothing in time"):
        LogReader("127.0.0.1", port, 0.05)


def test_closing_ends_a_read_in_another_thread() -> None:
    problems: list[str] = []

    def read() -> None:
        with pytest.raises(ConnectionError) as raised:
            reader.read(2, 9)
        problems.append(str(raised.value))

    with server(GREETING, b"PONG\r\n" + DELIVERY, hang=True) as port:
        reader = LogReader("127.0.0.1", port, 86_400)
        reader.subscribe("{}", "_INBOX.x")
        thread = threading.Thread(target=read)
        thread.start()
        reader.close()
        thread.join()
    assert problems == ["NATS closed the connection"]
    reader.close()


def test_arguments_are_checked() -> None:
    for seconds in (0.0, -1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match="timeout_seconds is"):
            LogReader("127.0.0.1", 1, seconds)
    with server(GREETING, hang=True) as port:
        reader = LogReader("127.0.0.1", port, 60)
        with pytest.raises(ValueError, match="more than one line"):
            reader.subscribe("{}\r\nPING", "_INBOX.x")
        with pytest.raises(ValueError, match="inbox is not a subject"):
            reader.subscribe("{}", "_INBOX x")
        with pytest.raises(ValueError, match="max_messages is 0"):
            reader.read(0, 1)
