"""The webhook against a real HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest
from pydantic import SecretStr

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import SamplePost, ViralSpike
from sentimesh.webhook import Webhook

NOW = 1_700_000_000_000


class Endpoint:
    """Keeps what is posted to it and answers with :attr:`status`."""

    def __init__(self) -> None:
        self.status = 204
        self.bodies: list[bytes] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(endpoint.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = SecretStr(f"http://127.0.0.1:{self.server.server_address[1]}/hook?key=geheim")
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.thread.join()
    endpoint.server.server_close()


def spike(ratio: float = 12.0, at_ms: int = NOW, resolved_at_ms: int = 0) -> ViralSpike:
    posts = [SamplePost(post_id="twitter:1", engagement_weight=3)]
    return ViralSpike(
        symbol="BTC", spike_ratio=ratio, detected_at_ms=at_ms, resolved_at_ms=resolved_at_ms, sample_posts=posts
    )


async def test_urgent_spikes_are_posted_as_json_and_others_are_not(endpoint: Endpoint) -> None:
    hook = Webhook(endpoint.url, 10.0, lambda: NOW)
    await hook.send([spike(), spike(9.9), spike(resolved_at_ms=NOW), spike(at_ms=NOW - 600_001)])
    [body] = endpoint.bodies
    told = orjson.loads(body)
    assert (told["symbol"], told["spike_ratio"], told["detected_at_ms"]) == ("BTC", 12.0, str(NOW))
    assert told["sample_posts"][0]["post_id"] == "twitter:1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, StorageUnavailableError),
        (429, StorageUnavailableError),
        (302, StorageUnavailableError),
        (404, StorageRefusedError),
    ],
)
async def test_an_answer_that_is_no_yes_is_tried_again_or_given_up(
    endpoint: Endpoint, status: int, kind: type[Exception]
) -> None:
    endpoint.status = status
    hook = Webhook(endpoint.url, 10.0, lambda: NOW)
    with pytest.raises(kind, match=rf"status {status}: check viral_detection\.webhook_url") as caught:
        await hook.send([spike()])
    assert "geheim" not in str(caught.value)


async def test_an_endpoint_that_is_not_there_is_tried_again_and_its_address_not_told() -> None:
    hook = Webhook(SecretStr("http://127.0.0.1:1/hook?key=geheim"), 10.0, lambda: NOW)
    with pytest.raises(StorageUnavailableError, match="the webhook does not answer") as caught:
        await hook.send([spike()])
    assert "geheim" not in repr(caught.value)
    assert caught.value.__cause__ is None
