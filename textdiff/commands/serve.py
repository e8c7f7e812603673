"""`textdiff serve RUN`: the model behind HTTP, with OpenAI's routes and a page."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..model.source import find
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
    parser.add_argument(
        "--ray",
        nargs="?",
        const="1",
        type=_replicas,
        metavar="MIN:MAX",
        help="on a Ray cluster, or one that is started here, so many replicas, by load",
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


def _replicas(text: str) -> tuple[int, int]:
    """MIN:MAX, or one number for both.

    >>> _replicas("1:4"), _replicas("2")
    ((1, 4), (2, 2))
    """
    least, _, most = text.partition(":")
    try:
        number = int(least), int(most or least)
    except ValueError:
        number = 0, 0
    if not 1 <= number[0] <= number[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN:MAX with 1 <= MIN <= MAX")
    return number


def _opened(options: argparse.Namespace) -> tuple[Any, Any]:
    """The application and its service."""
    from ..model.identity import identity_of
    from ..serving.app import create_app
    from ..serving.cache import opened
    from ..serving.service import Service

    model = open_run(options)
    service = Service(
        model,
        _limits(options),
        name=options.name or str(options.run),
        identity=identity_of(model, options.run),
        cache=opened(options.cache, options.cache_ttl),
    )
    warnings.simplefilter("ignore")  # of requests, whose callers would not see them
    return create_app(service, options.api_key or os.environ.get(KEY) or None), service


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(**{name: getattr(options, name) for name in vars(Limits())})


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    where = f"serving {options.name or options.run} at http://{options.host}:{options.port}"
    if options.ray is not None:
        built = _built(options)
        from ..serving import cluster

        cluster.run(built, options.host, options.port, said=where)
        return
    try:
        import uvicorn

        from ..serving import app as _needed  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'textdiff[serve]'") from None
    app, service = _opened(options)
    print(where, file=sys.stderr)
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=int(service.limits.deadline) + 1,
        server_header=False,
    )


def application(arguments: Mapping[str, Any]) -> Any:
    """The application that `serve run` of Ray builds, from the options of `textdiff serve` by their
    names (`configs/serve/ray.yaml`).

    Raises:
        ValueError: if RUN is missing, or an option does not exist.
    """
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    if "run" not in named:
        raise ValueError("args: say run: the model folder, .ckpt or Hub id")
    words = [str(named.pop("run")), *[f"--{name}={value}" for name, value in named.items()]]
    parser = _parser()
    parser.exit_on_error = False
    options, unknown = parser.parse_known_args(words)
    if unknown:
        raise ValueError(f"args: there is no option {unknown[0]}")
    return _built(options)


def _built(options: argparse.Namespace) -> Any:
    try:
        from ..serving import cluster
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'textdiff[serve,ray]'") from None
    options.run = find(options.run)
    options.name = options.name or str(options.run)
    least, most = options.ray or (1, 1)
    gpus = 1.0 if str(options.device).startswith("cuda") else 0.0
    return cluster.application(
        partial(_opened, options), _limits(options), least=least, most=most, gpus=gpus
    )
