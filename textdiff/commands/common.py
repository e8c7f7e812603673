"""What every command on a model folder shares: its options, opening the folder, a progress bar."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Any

import torch
from tqdm import tqdm

from ..model import laws
from ..model.folder import load
from ..model.model import Model
from ..model.source import find

RUN = (
    "model folder that `textdiff fit` wrote, a .ckpt in its checkpoints, or a Hub id "
    "user/name[@revision]"
)


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return (
            action.help
            if action.default is None or action.default is False
            else super()._get_help_string(action)
        )


def own_classes(module: str) -> list[type]:
    """The classes in a module of the user's, which is looked for in the working directory, too.

    Raises:
        argparse.ArgumentTypeError: if there is no such module.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        raise argparse.ArgumentTypeError(
            f"{error}: give the name of a module in the working directory or on PYTHONPATH"
        ) from None
    return [value for value in vars(imported).values() if isinstance(value, type)]


def add_import(parser: argparse.ArgumentParser) -> None:
    """The option by which a user allows her own classes; `options.classes` holds them."""
    parser.add_argument(
        "--import",
        dest="classes",
        metavar="MODULE",
        action="extend",
        type=own_classes,
        default=[],
        help="module with your own processes, hyperschedules or samplers; may be repeated",
    )


Options = argparse.ArgumentParser | argparse._ArgumentGroup


def add_verify(parser: Options) -> None:
    """Whether the reference bounds of a model are computed again."""
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compute the reference bounds of an exported model again, first",
    )


def add_device(parser: Options) -> None:
    """Where networks run."""
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the network runs",
    )


def add_schedule(parser: Options) -> None:
    """Another hyperschedule than that of training."""
    parser.add_argument(
        "--hyperschedule", help="such as 'Flat(64)' or 'Block(16, 16)'; default: that of training"
    )


def add_law(parser: Options) -> None:
    """What samples are drawn with, beside the hyperschedule."""
    parser.add_argument(
        "--sampler",
        help="such as 'Ancestral', 'ACS(eta=0.01)', 'FirstHitting' (default: Ancestral)",
    )
    parser.add_argument("--temperature", type=float, help="1 is the model's own law (default: 1)")


def law_of(options: argparse.Namespace) -> dict[str, Any]:
    """The hyperschedule, sampler and temperature that the command line states."""
    law: dict[str, Any] = {}
    schedule = schedule_of(options)
    if schedule is not None:
        law["hyperschedule"] = schedule
    if options.sampler:
        law["sampler"] = laws.named("sampler", options.sampler, options.classes)
    if options.temperature is not None:
        law["temperature"] = options.temperature
    return law


def parser_of(prog: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command on a model folder, with the options that all of them have."""
    parser = argparse.ArgumentParser(
        prog=f"textdiff {prog}",
        description=description,
        allow_abbrev=False,
        formatter_class=Help,
    )
    parser.add_argument("run", metavar="RUN", help=RUN)
    add_verify(parser)
    parser.add_argument("--seed", type=int, default=0, help="key of all draws")
    parser.add_argument(
        "--batch-size", type=int, default=16, help="sequences per network call; changes no result"
    )
    add_device(parser)
    add_schedule(parser)
    add_import(parser)
    return parser


def schedule_of(options: argparse.Namespace) -> laws.Hyperschedule | None:
    """The hyperschedule that the command line names; None: that of training."""
    if not options.hyperschedule:
        return None
    schedule: laws.Hyperschedule = laws.named(
        "hyperschedule", options.hyperschedule, options.classes
    )
    return schedule


def open_run(options: argparse.Namespace) -> Model:
    """The model of RUN, on its device; `options.run` becomes the `Source` that was found."""
    if options.batch_size is not None and options.batch_size < 1:
        raise ValueError(f"--batch-size must be >= 1, got {options.batch_size}")
    options.run = find(options.run)
    model = load(options.run, options.verify, options.classes)
    if options.verify:
        print(f"{options.run}: the reference bounds are those that were stored", file=sys.stderr)
    try:
        model.to(options.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from None
    return model


def progress_bar(**options: Any) -> Any:
    """A progress bar on a terminal, nothing in a file."""
    return tqdm(file=sys.stderr, leave=False, disable=None, **options)
