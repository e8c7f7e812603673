"""`textdiff convert FAMILY SOURCE OUT`: a published checkpoint as a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..convert import FAMILIES, convert
from ..files import check_place, new_folder
from ..model.folder import CONFIG, save


def main(arguments: list[str]) -> None:
    """Write the model folder and print what it holds; OUT is whole or not there."""
    parser = argparse.ArgumentParser(
        prog="textdiff convert",
        description="Turn a published checkpoint into a model folder. No code of the checkpoint is "
        "ever run.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "family", metavar="FAMILY", choices=FAMILIES, help=f"one of {', '.join(FAMILIES)}"
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="weights file, or folder of the Hugging Face Hub",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="model folder to write; must not exist, or be empty"
    )
    parser.add_argument(
        "--tokenizer",
        help="folder or id; default: the source's own, else what its configuration names, else "
        "gpt2",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="the authors' configuration, JSON or YAML; default: the one beside the weights",
    )
    options = parser.parse_args(arguments)
    out: Path = options.out
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty:
        raise ValueError(
            f"{str(out)!r} is already there: give a new folder, nothing is written over"
        )
    check_place(out / CONFIG, "OUT")
    model = convert(options.family, options.source, options.tokenizer, options.config)
    with new_folder(out) as fresh:
        save(model, fresh)
    network: Any = model.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"{parameters:,} parameters ({model.data['converted']['weights']}), {model.process}, "
        f"{model.hyperschedule}"
    )
    print("\n".join(f"- {note}" for note in model.data["notes"]))
    print(f"written to {out}")
