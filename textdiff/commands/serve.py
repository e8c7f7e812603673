"""`textdiff serve RUN`: the model behind HTTP, with OpenAI's routes and a page."""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from ..serving.limits import Limits
from .common import RUN, Help, add_device, add_import, add_verify, open_run

KEY = "TEXTDIFF_API_KEY"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textdiff serve",
        description="An HTTP server with OpenAI's routes (/v1/completions, /v1/models), /v1/score, "
        "/v1/decide, /metrics, and a page at / that shows texts being drawn.",
        allow_abbrev=False,
        formatter_class=Help,
    )
    parser.set_defaults(batch_size=None)
    parser.add_argument("run", metavar="RUN", help=RUN)
    add_verify(parser)
    add_device(parser)
    add_import(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address; 0.0.0.0 is every one")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")
    parser.add_argument("--name", help="the model's name in requests (default: that of RUN)")
    parser.add_argument(
        "--api-key", help=f"what clients must send as a bearer token; better in {KEY}"
    )
    limits = parser.add_argument_group("limits of a request")
    default = Limits()
    for name, kind, text in (
        ("length", int, "tokens of a sequence, the prompt too"),
        ("sequences", int, "drawn at a time"),
        ("queue", int, "sequences that wait beside them; then 429"),
        ("calls", int, "network calls of a sequence"),
        ("body", int, "bytes of a request"),
        ("deadline", float, "seconds until a request is given up"),
    ):
        option = "--deadline" if name == "deadline" else f"--max-{name}"
        limits.add_argument(option, dest=name, type=kind, default=getattr(default, name), help=text)
    cache = parser.add_argument_group("cache of answers to requests with a seed")
    cache.add_argument(
        "--cache", default="memory", metavar="WHERE", help="memory, none, redis://... or a folder"
    )
    cache.add_argument("--cache-ttl", type=int, default=3600, help="seconds an answer is kept")
    return parser


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    try:
        import uvicorn

        from ..serving.app import create_app
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'textdiff[serve]'") from None
    from ..model.identity import identity_of
    from ..serving.cache import opened
    from ..serving.service import Service

    limits = Limits(**{name: getattr(options, name) for name in vars(Limits())})
    model = open_run(options)
    name = options.name or str(options.run)
    service = Service(
        model,
        limits,
        name=name,
        identity=identity_of(model, options.run),
        cache=opened(options.cache, options.cache_ttl),
    )
    warnings.simplefilter("ignore")  # of requests, whose callers would not see them
    app = create_app(service, options.api_key or os.environ.get(KEY) or None)
    print(f"serving {name} at http://{options.host}:{options.port}", file=sys.stderr)
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=int(limits.deadline) + 1,
        server_header=False,
    )
