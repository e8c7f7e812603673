"""What every command on a model folder shares: its options, opening the folder, a progress bar."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from tqdm import tqdm

from ..model.folder import load
from ..model.model import Model
from ..model.source import find

RUN = "model folder that `textdiff fit` wrote, a .ckpt in its checkpoints, or a Hub id user/name[@revision]"


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return (
            action.help
            if action.default is None or action.default is False
            else super()._get_help_string(action)
        )


def parser_of(prog: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command on a model folder, with the options that all of them have."""
    parser = argparse.ArgumentParser(
        prog=f"textdiff {prog}",
        description=description,
        allow_abbrev=False,
        formatter_class=Help,
    )
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compute the reference bounds of an exported model again, first",
    )
    parser.add_argument("--seed", type=int, default=0, help="key of all draws")
    parser.add_argument(
        "--batch-size", type=int, default=16, help="sequences per network call; changes no result"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the network runs",
    )
    parser.add_argument(
        "--hyperschedule", help="such as 'Flat(64)' or 'Block(16, 16)'; default: that of training"
    )
    return parser


def open_run(options: argparse.Namespace) -> Model:
    """The model of RUN, on its device; `options.run` becomes the `Source` that was found."""
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be >= 1, got {options.batch_size}")
    options.run = find(options.run)
    model = load(options.run, options.verify)
    if options.verify:
        print(f"{options.run}: the reference bounds are those that were stored", file=sys.stderr)
    try:
        model.network.to(options.device)  # type: ignore[attr-defined]
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from None
    return model


def progress_bar(**options: Any) -> Any:
    """A progress bar on a terminal, nothing in a file."""
    return tqdm(file=sys.stderr, leave=False, disable=None, **options)
