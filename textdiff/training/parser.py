"""Errors of a command line in one line, with the names that are known."""

from __future__ import annotations

import difflib
import re
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from ..spec import names
from . import configs

UNKNOWN = re.compile(r"[Uu]nrecognized arguments: (.*)", re.S)
CLASS = re.compile(r"class_path '([\w.]+)'|path but ([\w.]+) either not accessible")
KEY = re.compile(r'Parser key "([\w.]+)"')


class Parser(LightningArgumentParser):
    """LightningCLI's parser, without the page of usage before an error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a ValueError of one line, which the command prints."""
        raise ValueError(told(message, self._options()))

    def _options(self) -> list[str]:
        """The options that it and its commands have, as they are written."""
        below = getattr(self._subcommands_action, "choices", None) or {}
        actions = [action for parser in (self, *below.values()) for action in parser._actions]
        return [option for action in actions for option in action.option_strings]


def told(message: str, options: list[str]) -> str:
    """A message of jsonargparse in one line, with the nearest names that are known.

    >>> told("unrecognized arguments: --config x --modle.lr 1", ["--model.lr", "--data.length"])
    'no option --modle.lr: did you mean --model.lr? textdiff fit --help lists all'
    """
    if match := UNKNOWN.search(message):
        words = match[1].split()
        wrong = [word.split("=")[0] for word in words if word.startswith("-")] or words
        there = (*options, configs.OPTION)  # all words come back where one is wrong
        option = next((word for word in wrong if word not in there), wrong[0])
        return f"no option {option}: {_nearest(option, options)}textdiff fit --help lists all"
    if match := CLASS.search(message):
        path, key = match[1] or match[2], KEY.search(message)
        known = _known(key[1].rpartition(".")[2] if key else "")
        shown = f"; known: {', '.join(known)}" if known else ""
        is_other = "correspond to a subclass" in message
        wrong = f"{path} is no class for this option" if is_other else f"there is no class {path}"
        return wrong + shown
    lines = [line.strip(" -") for line in message.splitlines()]
    return " ".join(line for line in lines if line)


def _nearest(option: str, options: list[str]) -> str:
    close = difflib.get_close_matches(option, options, n=1, cutoff=0.6)
    return f"did you mean {close[0]}? " if close else ""


def _known(key: str) -> list[str]:
    """The classes that the last word of an option stands for."""
    aliases = {"network": "Architecture", "tokenizer": "TokenizerSpec"}
    name = aliases.get(key, key.capitalize())
    return [one for base in configs.BASES if base.__name__ == name for one in names(base)]
