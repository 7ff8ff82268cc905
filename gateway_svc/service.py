"""The gateway's RPC service: what is the crowd's sentiment about a symbol, now, as it changes, and as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import grpc

from gateway_svc.errors import RequestRefusedError
from gateway_svc.history import SentimentHistory
from gateway_svc.reader import SentimentReader
from gateway_svc.updates import UpdateBuffer
from sentimesh.errors import InvalidSymbolError, SentimeshError, StorageUnavailableError
from sentimesh.pb import gateway_pb2
from sentimesh.pb.gateway_pb2 import SentimentSource, SocialSentiment
from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceServicer
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.symbols import validate_symbol

MAX_SYMBOLS = 100
# Sent with UNAVAILABLE, so that a client can tell a gateway without its storage from no gateway.
STORAGE_UNAVAILABLE = ("sentimesh-error", "storage_unavailable")

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
LiveUpdates = Callable[[Sequence[str]], AsyncIterator[SentimentAggregate]]


class SentimentGateway(SentimentGatewayServiceServicer):
    """``SentimentGatewayService`` of proto/gateway.proto, for a grpc.aio server."""

    def __init__(
        self,
        reader: SentimentReader,
        history: SentimentHistory,
        live: LiveUpdates,
        assets: Mapping[str, str],
        *,
        on_answer: Callable[[str, str], None] = lambda _symbol, _source: None,
    ) -> None:
        """Answer for the tracked ``assets`` (symbol to name).

        ``live`` gives the updates of symbols from the moment it is first iterated; it may raise a
        SentimeshError. ``on_answer`` is told the symbol and the source (redis, postgresql, default or live) of
        every answer.
        """
        self._reader = reader
        self._history = history
        self._live = live
        self._assets = dict(assets)
        self._on_answer = on_answer

    async def GetSocialSentiment(  # noqa: N802, D102
        self, request: gateway_pb2.GetSocialSentimentRequest, context: Context
    ) -> gateway_pb2.GetSocialSentimentResponse:
        symbols = await self._tracked([request.symbol], context)
        [sentiment] = await self._current(symbols)
        return gateway_pb2.GetSocialSentimentResponse(sentiment=sentiment)

    async def BatchGetSocialSentiment(  # noqa: N802, D102
        self, request: gateway_pb2.BatchGetSocialSentimentRequest, context: Context
    ) -> gateway_pb2.BatchGetSocialSentimentResponse:
        if not request.symbols:
            await _refuse(context, f"no symbols given: ask for 1 to {MAX_SYMBOLS}")
        symbols = await self._tracked(request.symbols, context)
        return gateway_pb2.BatchGetSocialSentimentResponse(sentiments=await self._current(symbols))

    async def WatchSocialSentiment(  # type: ignore[override]  # noqa: N802, D102
        self, request: gateway_pb2.WatchSocialSentimentRequest, context: Context
    ) -> None:
        # Written to the context instead of yielded: cancelling the call then ends the task group in its own task.
        asked = await self._tracked(request.symbols, context) if request.symbols else sorted(self._assets)
        symbols = list(dict.fromkeys(asked))
        buffer = UpdateBuffer()
        failure: SentimeshError | None = None
        async with asyncio.TaskGroup() as group:
            # Listening starts before the state is read, so that nothing falls between the two.
            group.create_task(buffer.fill(self._live(symbols)))
            try:
                async for sentiment in self._states_then_updates(symbols, buffer):
                    await context.write(gateway_pb2.WatchSocialSentimentResponse(sentiment=sentiment))
            except SentimeshError as error:
                failure = error
        if failure is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"live updates ended: {failure}; watch again later")

    async def ListSymbols(  # noqa: N802, D102
        self, request: gateway_pb2.ListSymbolsRequest, context: Context
    ) -> gateway_pb2.ListSymbolsResponse:
        return gateway_pb2.ListSymbolsResponse(
            symbols=[
                gateway_pb2.TrackedSymbol(symbol=symbol, name=name) for symbol, name in sorted(self._assets.items())
            ]
        )

    async def GetSentimentHistory(  # noqa: N802, D102
        self, request: gateway_pb2.GetSentimentHistoryRequest, context: Context
    ) -> gateway_pb2.GetSentimentHistoryResponse:
        [symbol] = await self._tracked([request.symbol], context)
        return await _answer(self._history.windows(symbol, request), context)

    async def ListViralSpikes(  # noqa: N802, D102
        self, request: gateway_pb2.ListViralSpikesRequest, context: Context
    ) -> gateway_pb2.ListViralSpikesResponse:
        symbols = await self._tracked(request.symbols, context) if request.symbols else list(self._assets)
        return await _answer(self._history.spikes(symbols, request), context)

    async def GetAuthorCredibility(  # noqa: N802, D102
        self, request: gateway_pb2.GetAuthorCredibilityRequest, context: Context
    ) -> gateway_pb2.GetAuthorCredibilityResponse:
        return await _answer(self._history.authors(request), context)

    async def _states_then_updates(
        self, symbols: Sequence[str], buffer: UpdateBuffer
    ) -> AsyncIterator[SocialSentiment]:
        shown: dict[str, int] = {}
        for sentiment in await self._current(symbols):
            shown[sentiment.symbol] = sentiment.aggregate.updated_at_ms
            yield sentiment
        async for aggregate in buffer.drain():
            if aggregate.updated_at_ms >= shown.get(aggregate.symbol, 0):
                sentiment = self._reader.from_aggregate(aggregate, SentimentSource.SENTIMENT_SOURCE_LIVE)
                self._answered(sentiment)
                yield sentiment

    async def _current(self, symbols: Sequence[str]) -> list[SocialSentiment]:
        sentiments = await self._reader.read(symbols)
        for sentiment in sentiments:
            self._answered(sentiment)
        return sentiments

    def _answered(self, sentiment: SocialSentiment) -> None:
        source = SentimentSource.Name(sentiment.source).removeprefix("SENTIMENT_SOURCE_").lower()
        self._on_answer(sentiment.symbol, source)

    async def _tracked(self, asked: Sequence[str], context: Context) -> list[str]:
        """Return the tickers asked for; end the call where one cannot be or is not tracked."""
        if len(asked) > MAX_SYMBOLS:
            await _refuse(context, f"{len(asked)} symbols asked for: ask for {MAX_SYMBOLS} at most in one call")
        try:
            symbols = [validate_symbol(symbol) for symbol in asked]
        except InvalidSymbolError as error:
            await _refuse(context, str(error))
        if unknown := [symbol for symbol in symbols if symbol not in self._assets]:
            detail = f"{unknown[0]} is not tracked: add it to the tracked symbols in the configuration and restart"
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{detail}; ListSymbols names those that are")
        return symbols


async def _answer(answer: Awaitable[T], context: Context) -> T:
    """Return an answer about the past; end the call where there is none."""
    try:
        return await answer
    except RequestRefusedError as error:
        await _refuse(context, str(error))
    except StorageUnavailableError as error:
        detail = f"the history cannot be read: {error}, then ask again"
        await context.abort(grpc.StatusCode.UNAVAILABLE, detail, (STORAGE_UNAVAILABLE,))


async def _refuse(context: Context, detail: str) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, detail)
