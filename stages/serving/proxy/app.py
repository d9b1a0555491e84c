"""The web application: routes, and how errors are worded."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from stages.serving.proxy import delivery, schema
from stages.serving.proxy.completions import Completions
from stages.serving.proxy.delivery import Answering
from stages.serving.proxy.doorkeeper import Doorkeeper
from stages.serving.proxy.embeddings import embed
from stages.serving.proxy.errors import ApiError
from stages.serving.proxy.openapi import state_limits
from stages.serving.proxy.refusals import refusal
from stages.serving.proxy.service import Service
from stages.serving.proxy.stats import Stats

if TYPE_CHECKING:
    from starlette.types import ASGIApp

LOG = logging.getLogger("groundtune.serve")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.ErrorBody} for status in (400, 401, 403, 404, 408, 413, 415, 421, 429, 500, 502, 503, 504)
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schema.ChatCompletion,
        "description": "The answer, or its stream of events.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


class EventStream(StreamingResponse):
    """Ends its generator when it ends itself, whatever the reason, and then lets go of what the answer held."""

    media_type = "text/event-stream"

    def __init__(self, answering: Answering, stats: Stats) -> None:
        super().__init__(delivery.events(answering, stats), headers={"Cache-Control": "no-store"})
        self._resources = answering.resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Without Starlette's look-out for a client that leaves: the Doorkeeper has one."""
        async with self._resources, aclosing(self.body_iterator):  # type: ignore[type-var]  # a generator
            await self.stream_response(send)


def build_app(service: Service) -> ASGIApp:
    """The whole application; starts and closes the service with the server."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await service.close()

    app = FastAPIOffline(  # its page comes from files of the package: nothing is fetched from outside
        title="groundtune", redoc_url=None, static_url="/docs/files", lifespan=lifespan, responses=ERRORS
    )
    _add_chat(app, service)
    _add_others(app, service)
    _add_status(app, service)
    _add_error_handlers(app)
    state_limits(app, service.config.limits)
    endpoints = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    guarded = Doorkeeper(app, service.keys, service.visitors, service.config.limits, service.stats, endpoints)
    return _with_cors(guarded, service.config.allowed_origins)


def _with_cors(app: Any, origins: list[str]) -> ASGIApp:
    if not origins:
        return app  # type: ignore[no-any-return]
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(app, origins, allow_methods=["GET", "POST"], allow_headers=["authorization", "content-type"])


def _add_chat(app: FastAPI, service: Service) -> None:
    completions: Completions = service.completions

    @app.post("/v1/chat/completions", responses=STREAM, tags=["chat"])
    async def chat_completions(request: schema.ChatRequest) -> Any:
        """An answer with documents of the model's domain, whole or as a stream."""
        answering = await completions.begin(request)
        if request.stream:
            return EventStream(answering, service.stats)
        return JSONResponse(await delivery.whole(answering, service.stats))

    @app.get("/v1/models", tags=["chat"])
    async def list_models() -> schema.ModelList:
        """The models that can be asked."""
        return schema.ModelList(data=[_card(entry) for entry in await service.catalogue.listed()])

    @app.get("/v1/models/{model:path}", tags=["chat"])
    async def retrieve_model(model: str) -> schema.ModelCard:
        """One of them."""
        return _card(await service.catalogue.entry(model))


def _card(entry: Any) -> schema.ModelCard:
    return schema.ModelCard(
        id=entry.name,
        created=entry.created,
        domain=entry.domain.name,
        upstream=entry.upstream_name,
        context_tokens=entry.context_tokens,
        template=entry.renderer.hash if entry.renderer else "",
    )


def _add_others(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings", response_model=schema.EmbeddingList, tags=["documents"])
    async def embeddings(request: schema.EmbeddingRequest) -> Any:
        """Vectors of texts, by the embedder of a domain."""
        return JSONResponse(await embed(request, service.catalogue, service.gate, service.config.limits))

    @app.post("/v1/retrieve", response_model=schema.Retrieved, tags=["documents"])
    async def retrieve(request: schema.RetrieveRequest) -> Any:
        """The documents nearest to a query, with their siblings."""
        return JSONResponse(await service.completions.retrieve(request))

    @app.post("/v1/predict", response_model=schema.Predictions, tags=["numbers"])
    async def predict(request: schema.PredictRequest) -> Any:
        """Numbers for pairs of texts, with intervals."""
        numbers = service.find_numbers()
        if numbers is None:
            raise ApiError(404, "no_task", "no regression task is served here")
        async with service.gate.place():
            return JSONResponse(await numbers.predict(request, service.config.limits))


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["status"])
    async def health() -> schema.Health:
        """That the server answers."""
        return schema.Health()

    @app.get("/stats", tags=["status"])
    async def stats(request: Request) -> schema.Stats:
        """Counts, quantiles, and for the admin key the recent queries."""
        return schema.Stats(**service.to_stats(request.scope["groundtune.is_admin"]))

    @app.get("/metrics", tags=["status"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(service.stats.prometheus(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def ours(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refused(_: Request, error: RequestValidationError) -> JSONResponse:
        return await ours(_, refusal(error.errors(), error.body))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return await ours(_, ApiError(500, "internal_error", "something went wrong; see the server's log"))

    @app.exception_handler(HTTPException)
    async def routing(_: Request, error: HTTPException) -> JSONResponse:
        codes = {400: "invalid_json", 404: "unknown_path", 405: "wrong_method"}
        words = {400: "the request is no JSON that can be read", 404: "no such path", 405: "no such method here"}
        status = error.status_code
        known = ApiError(status, codes.get(status, "http_error"), words.get(status, "this cannot be answered"))
        return JSONResponse(known.body(), known.status, {**known.headers, **(error.headers or {})})
