"""The `textdiff` command. Help and errors of the command line cost no torch import."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

USAGE = """\
usage: textdiff COMMAND ...

train and predict (Lightning):
  fit                   train; --config FILE ..., any option as --model.x, --data.x, --trainer.x
  validate, test        bounds of a checkpoint on the validation or test split
  predict               fill [MASK] in a file of texts
work with a model folder RUN that `fit` wrote:
  sample RUN            draw texts; --prompt, --hyperschedule, --sampler, ...
  evaluate perplexity RUN
                        bounds with standard errors, as a table and a JSON
options:
  -h, --help            this page; after a command, that command's options
  --version             the version

Errors end with exit code 2 and one line; set TEXTDIFF_DEBUG=1 for a traceback."""

LIGHTNING = ("fit", "validate", "test", "predict")


def _run(command: str, arguments: list[str]) -> None:
    if command in LIGHTNING:
        from .lightning_cli import main as lightning_main

        lightning_main([command, *arguments])
    elif command == "sample":
        from .commands import sample

        sample(arguments)
    elif command == "evaluate":
        from .commands import evaluate

        evaluate(arguments)
    else:
        raise ValueError(f"unknown command {command!r}: see textdiff --help")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    if arguments[0] == "--version":
        from . import __version__

        print(f"textdiff {__version__}")
        return
    warnings.showwarning = _show_warning
    try:
        _run(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("TEXTDIFF_DEBUG") or not _is_users(error):
            raise
        print(f"textdiff: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"textdiff: warning: {message}", file=sys.stderr)


def _is_users(error: Exception) -> bool:
    """Whether the message is meant for the user; anything else is a defect and shows its traceback."""
    libraries = {"MisconfigurationException", "OmegaConfBaseException"}  # by name: to import Lightning takes seconds
    return isinstance(error, ValueError | OSError) or any(cls.__name__ in libraries for cls in type(error).__mro__)
