"""The routes: what a request says is read, bounded, looked up, drawn and answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from .completing import Completing
from .errors import Refused
from .fields import Completion, DecideOf, ScoreOf, said
from .guard import Guard
from .service import Service

ASSETS = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def create_app(service: Service, api_key: str | None = None) -> FastAPI:
    """The application of a service.

    Args:
        service: what draws and scores.
        api_key: what a client must send as `Authorization: Bearer ...`; None: nothing.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    guard = Middleware(Guard, limits=service.limits, metrics=service.metrics, api_key=api_key)
    app = FastAPI(
        title="textdiff",
        lifespan=lifespan,
        docs_url=None,  # these pages fetch scripts from elsewhere
        redoc_url=None,
        middleware=[guard],
    )
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    _add_routes(app, service)
    for name, kind in ASSETS.items():
        path = "/" if name == "page.html" else f"/{name}"
        app.add_api_route(path, _asset(name, kind), include_in_schema=False)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions")
    async def completions(body: Completion, request: Request) -> Response:
        service.check_model(body.model)
        return await Completing(service, body, request).answer()

    @app.post("/v1/score")
    async def score(body: ScoreOf) -> Response:
        return JSONResponse(await service.score(body))

    @app.post("/v1/decide")
    async def decide(body: DecideOf) -> Response:
        return JSONResponse(await service.decide(body))

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [service.card()]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        service.check_model(name)
        return JSONResponse(service.card())

    @app.get("/health")
    async def health() -> Response:
        healthy = service.healthy
        return JSONResponse({"status": "ok" if healthy else "failed"}, 200 if healthy else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _asset(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    text = files("textdiff.serving").joinpath(name).read_text(encoding="utf-8")

    async def serve() -> Response:
        return Response(text, media_type=kind, headers={"Content-Security-Policy": POLICY})

    return serve


async def _refused(request: Request, error: Any) -> Response:
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def _invalid(request: Request, error: Any) -> Response:
    message, name = said(list(error.errors()))
    return JSONResponse(Refused(400, message, name).body(), 400)


async def _http(request: Request, error: Any) -> Response:
    headers = dict(error.headers or {})
    return JSONResponse(Refused(error.status_code, error.detail).body(), error.status_code, headers)


async def _failed(request: Request, error: Exception) -> Response:
    message = "this request failed; the log of the server says why"
    return JSONResponse(Refused(500, message).body(), 500)
