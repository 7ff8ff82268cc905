"""Tells somebody's HTTP endpoint about urgent spikes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
from google.protobuf import json_format
from pydantic import SecretStr

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike

TIMEOUT_SECONDS = 5.0
# An alert that could not be delivered for so long is no news.
URGENT_MS = 600_000
CLIENT_ERRORS = range(400, 500)
# "Try again later" among the client errors: time-out, too early, too many requests.
LATER = (408, 425, 429)


class Webhook:
    """POSTs each spike as proto3 JSON with original field names."""

    def __init__(self, url: SecretStr, min_ratio: float, now_ms: Callable[[], int]) -> None:
        """``min_ratio``: times the baseline from which a spike is urgent."""
        self._url = url
        self._min_ratio = min_ratio
        self._now_ms = now_ms

    async def send(self, spikes: Sequence[ViralSpike]) -> None:
        """Send those that are urgent and still on, one request each.

        Raises StorageUnavailableError when the endpoint is to be tried again, StorageRefusedError when it says no.
        Trying again sends the earlier ones of the same call again: ``symbol`` and ``detected_at_ms`` tell them apart.
        """
        urgent = [spike for spike in spikes if self._is_urgent(spike)]
        if urgent:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                for spike in urgent:
                    await self._post(client, spike)

    def _is_urgent(self, spike: ViralSpike) -> bool:
        late = self._now_ms() - spike.detected_at_ms > URGENT_MS
        return not spike.resolved_at_ms and spike.spike_ratio >= self._min_ratio and not late

    async def _post(self, client: httpx.AsyncClient, spike: ViralSpike) -> None:
        body = json_format.MessageToJson(spike, preserving_proto_field_name=True, indent=None)
        try:
            response = await client.post(
                self._url.get_secret_value(), content=body, headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as error:
            # From None: such an error may quote the URL, which may hold a key.
            raise StorageUnavailableError(
                f"the webhook does not answer ({type(error).__name__}): check viral_detection.webhook_url"
            ) from None
        if response.status_code in CLIENT_ERRORS and response.status_code not in LATER:
            raise StorageRefusedError(
                f"the webhook refuses an alert with status {response.status_code}: check viral_detection.webhook_url"
            )
        if not response.is_success:
            raise StorageUnavailableError(
                f"the webhook answers with status {response.status_code}: check viral_detection.webhook_url"
            )
