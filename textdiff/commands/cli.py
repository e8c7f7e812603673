"""The `textdiff` command. Help and errors of the command line cost no torch import."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

USAGE = """\
usage: textdiff COMMAND ...

train and predict (Lightning):
  fit                   train; --config NAME or FILE ..., any option as --model.x, --data.x,
                        --trainer.x
  validate, test        bounds of a checkpoint on the validation or test split
  predict               fill [MASK] in a file of texts
work with a model RUN (a folder that `fit` wrote, a .ckpt, or a Hub id user/name[@revision]):
  sample RUN            draw texts; --prompt, --hyperschedule, --sampler, ...
  score RUN             how likely the completions of a .jsonl are, exactly or bounded
  evaluate perplexity RUN
                        bounds with standard errors on one text or many, as a table and a JSON each
  evaluate lambada RUN  accuracy of the last word
  evaluate samples FILE or RUN
                        generative perplexity, entropy, distinct n-grams, MAUVE
  evaluate audit RUN    bounds and samples of a model of a language whose truth is known
  evaluate harness RUN  tasks of lm-evaluation-harness
  evaluate frontier FILE.yaml
                        quality over runs, samplers and hyperschedules; resumes
  serve RUN             an HTTP server with OpenAI's routes, and a page that shows the drawing
  report FOLDER         one Markdown and one HTML report of all its JSONs
  convert FAMILY SOURCE OUT
                        a published HDLM, MDLM, SEDD or BD3-LM checkpoint as a model folder
  export RUN OUT        a folder to share: model, reference bound, model card
  push RUN user/name    upload that folder to the Hugging Face Hub; --dry-run, --private, --revision
your own classes:
  --import MODULE       with any command: opens what your own processes, hyperschedules and
                        samplers in MODULE were used for; may be repeated
options:
  -h, --help            this page; after a command, that command's options
  --version             the version

Errors end with exit code 2 and one line; set TEXTDIFF_DEBUG=1 for a traceback."""

LIGHTNING = ("fit", "validate", "test", "predict")
COMMANDS = {
    "sample": "sample",
    "score": "score",
    "evaluate perplexity": "perplexity",
    "evaluate lambada": "lambada",
    "evaluate samples": "quality",
    "evaluate audit": "audit",
    "evaluate harness": "harness",
    "evaluate frontier": "frontier",
    "report": "report",
    "serve": "serve",
    "export": "export",
    "push": "push",
    "convert": "convert",
}
"""Words -> the module of `textdiff.commands` whose `main` takes the other words."""


def _run(arguments: list[str]) -> None:
    if arguments[0] in LIGHTNING:
        _train(arguments)
        return
    for words in (1, 2):
        command = " ".join(arguments[:words])
        if command in COMMANDS:
            import_module(f"textdiff.commands.{COMMANDS[command]}").main(arguments[words:])
            return
    below = [command for command in COMMANDS if command.startswith(f"{arguments[0]} ")]
    if below and arguments[1:] in (["-h"], ["--help"]):
        print(
            "\n".join(
                f"usage: textdiff {command} ...; see textdiff {command} --help" for command in below
            )
        )
    elif below:
        raise ValueError(
            f"textdiff {arguments[0]} needs one of: {', '.join(below)}; see textdiff --help"
        )
    else:
        raise ValueError(f"unknown command {arguments[0]!r}: see textdiff --help")


def _train(arguments: list[str]) -> None:
    """A command of Lightning's; modules are found in the working directory, too."""
    from ..training.cli import main as lightning_main
    from .common import add_import

    parser = argparse.ArgumentParser(prog="textdiff fit", add_help=False, allow_abbrev=False)
    add_import(parser)
    options, others = parser.parse_known_args(arguments)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    lightning_main(others, options.classes)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    if arguments[0] == "--version":
        print(f"textdiff {version('textdiff')}")
        return
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        _run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("TEXTDIFF_DEBUG") or not _is_users(error):
            raise
        print(f"textdiff: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    finally:
        warnings.showwarning = shown


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"textdiff: warning: {message}", file=sys.stderr)


def _is_users(error: Exception) -> bool:
    """Whether the message is meant for the user; else it is a defect and shows its traceback."""
    libraries = {
        "MisconfigurationException",
        "OmegaConfBaseException",
    }  # by name: to import Lightning takes seconds
    return isinstance(error, ValueError | OSError) or any(
        cls.__name__ in libraries for cls in type(error).__mro__
    )
