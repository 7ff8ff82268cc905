"""gRPC servers: a stage as a bidirectional stream, health, reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sentimesh.errors import MalformedMessageError, SentimeshError, ServerStartError
from sentimesh.patience import Patience
from sentimesh.pb import pipeline_pb2, pipeline_pb2_grpc
from sentimesh.pb.pipeline_pb2 import DroppedPost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject, Stage

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0
CHECK_TIMEOUT_SECONDS = 5.0
PACKAGE = "com.verlumen.tradestream.social"


def dropped_post(stage: str, drop: Drop) -> DroppedPost:
    """Return the message form of a drop."""
    return DroppedPost(
        post_id=drop.post_id,
        symbol=drop.symbol,
        stage=stage,
        reason=drop.reason,
        credibility_score=drop.credibility_score,
    )


def _respond(response: Any, stage: str, outcomes: Sequence[Outcome], take: Callable[[Any], None]) -> None:
    """Fill a response: ``take`` puts a forwarded message into its field."""
    for outcome in outcomes:
        match outcome:
            case Forward(message=message):
                take(message)
            case Drop():
                response.dropped.CopyFrom(dropped_post(stage, outcome))
            case Reject(reason=reason):
                response.rejected_reason = reason


def _ingest_response(outcomes: Sequence[Outcome]) -> pipeline_pb2.IngestResponse:
    response = pipeline_pb2.IngestResponse()
    _respond(response, "ingest", outcomes, response.posts.append)
    return response


def _filter_response(outcomes: Sequence[Outcome]) -> pipeline_pb2.FilterResponse:
    response = pipeline_pb2.FilterResponse()
    _respond(response, "filter", outcomes, response.post.CopyFrom)
    return response


def _score_response(outcomes: Sequence[Outcome]) -> pipeline_pb2.ScoreResponse:
    response = pipeline_pb2.ScoreResponse()
    _respond(response, "scorer", outcomes, response.post.CopyFrom)
    return response


def _aggregate_response(outcomes: Sequence[Outcome]) -> pipeline_pb2.AggregateResponse:
    response = pipeline_pb2.AggregateResponse()

    def take(message: ViralSpike | SentimentAggregate) -> None:
        if isinstance(message, ViralSpike):
            response.spikes.append(message)
        else:
            response.aggregates.append(message)

    _respond(response, "aggregator", outcomes, take)
    return response


class _StageServicer:
    """Runs each stream through a session of the stage: the same code, state of its own."""

    def __init__(self, stage: Stage[Any], field: str, respond: Callable[[Sequence[Outcome]], Any]) -> None:
        self._stage = stage
        self._field = field
        self._respond = respond

    async def stream(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        session = self._stage.session()
        sequence = 0
        async for request in requests:
            sequence += 1
            if not request.HasField(self._field):
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"request {sequence} has no {self._field}: set it"
                )
            try:
                results = await session.process([Delivery(getattr(request, self._field), sequence)])
            except SentimeshError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            yield self._respond(results[0])

    def unary(self, field: str, ask: Callable[[Any, Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return a method that asks a new session about the message in the request's ``field``."""

        async def call(_self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            if not request.HasField(field):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request has no {field}: set it")
            try:
                return await ask(self._stage.session(), getattr(request, field))
            except MalformedMessageError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except SentimeshError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

        return call


def _servicer(base: type[Any], method: str, servicer: _StageServicer, **unary: Callable[..., Awaitable[Any]]) -> Any:
    # grpc looks at the method itself to see that it is an asynchronous generator.
    async def call(_self: Any, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async for response in servicer.stream(requests, context):
            yield response

    return type(base.__name__, (base,), {method: call, **unary})()


def add_stage(server: grpc.aio.Server, name: str, stage: Stage[Any]) -> str:
    """Add the service of a stage (ingest, filter, scorer or aggregator) and return its full name."""
    match name:
        case "ingest":
            servicer = _StageServicer(stage, "raw_post", _ingest_response)
            pipeline_pb2_grpc.add_IngestServiceServicer_to_server(
                _servicer(pipeline_pb2_grpc.IngestServiceServicer, "Ingest", servicer), server
            )
            return f"{PACKAGE}.IngestService"
        case "filter":
            servicer = _StageServicer(stage, "post", _filter_response)
            explain = servicer.unary("post", lambda session, post: session.explain(post))
            pipeline_pb2_grpc.add_FilterServiceServicer_to_server(
                _servicer(pipeline_pb2_grpc.FilterServiceServicer, "Filter", servicer, ExplainCredibility=explain),
                server,
            )
            return f"{PACKAGE}.FilterService"
        case "scorer":
            servicer = _StageServicer(stage, "post", _score_response)
            pipeline_pb2_grpc.add_ScorerServiceServicer_to_server(
                _servicer(pipeline_pb2_grpc.ScorerServiceServicer, "Score", servicer), server
            )
            return f"{PACKAGE}.ScorerService"
        case "aggregator":
            servicer = _StageServicer(stage, "post", _aggregate_response)
            pipeline_pb2_grpc.add_AggregatorServiceServicer_to_server(
                _servicer(pipeline_pb2_grpc.AggregatorServiceServicer, "Aggregate", servicer), server
            )
            return f"{PACKAGE}.AggregatorService"
    raise ValueError(f"{name} has no stage service")


async def _holds(name: str, check: Callable[[], Coroutine[Any, Any, bool]], patience: Patience) -> bool:
    try:
        return await patience.wait(check())
    except Exception as error:
        # Whatever a client library raises: the dependency is not usable.
        log.debug("health.check_failed", dependency=name, error=type(error).__name__)
        return False


def _status(*, serving: bool) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING


class RpcServer:
    """One listening port: services, health and reflection. Health starts as NOT_SERVING."""

    def __init__(self, host: str, port: int) -> None:
        """``port`` 0 takes a free one; see :attr:`port` after :meth:`start`."""
        self.server = grpc.aio.server()
        self._host = host
        self._requested_port = port
        self.port = 0
        self._health = health.aio.HealthServicer()
        self._services: list[str] = []

    @property
    def address(self) -> str:
        """host:port that clients use."""
        return f"{self._host}:{self.port}"

    async def start(self, services: Sequence[str]) -> None:
        """Add health and reflection for the services already added to :attr:`server`, then listen."""
        self._services = [*services, ""]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self.server)
        await self.set_serving(serving=False)
        try:
            self.port = self.server.add_insecure_port(f"{self._host}:{self._requested_port}")
        except RuntimeError as error:
            message = (
                f"cannot listen on {self._host}:{self._requested_port}: "
                "another program does; stop it or set another port under server in the configuration"
            )
            raise ServerStartError(message) from error
        await self.server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        for service in self._services:
            await self._health.set(service, _status(serving=serving))

    async def watch(
        self,
        checks: Mapping[str, Callable[[], Coroutine[Any, Any, bool]]],
        stop: asyncio.Event,
        on_check: Callable[..., None] = lambda _name, *, up: None,
        degraded: Mapping[str, Callable[[], bool]] | None = None,
    ) -> None:
        """Keep health at SERVING exactly while every dependency's check says yes, until ``stop``.

        Each dependency has a health service of its own name as well. ``on_check`` is told its name and ``up``.
        ``degraded``: names of health services that are NOT_SERVING meanwhile and leave the others as they are.
        """
        before: set[str] | None = None
        patience = Patience(CHECK_TIMEOUT_SECONDS)
        while not stop.is_set():
            answers = await asyncio.gather(*(_holds(name, check, patience) for name, check in checks.items()))
            failing = {name for name, healthy in zip(checks, answers, strict=True) if not healthy}
            for name in checks:
                on_check(name, up=name not in failing)
                await self._health.set(name, _status(serving=name not in failing))
            for name, is_degraded in (degraded or {}).items():
                await self._health.set(name, _status(serving=not is_degraded()))
            if failing != before:
                await self.set_serving(serving=not failing)
                if failing or before:
                    log.warning("health.changed", failing=sorted(failing))
                before = failing
            try:
                await asyncio.wait_for(stop.wait(), CHECK_SECONDS)
            except TimeoutError:
                continue
        await self.set_serving(serving=False)

    async def stop(self) -> None:
        """Let running calls end (five seconds), then close."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(5)
