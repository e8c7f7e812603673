"""What may stand for a model wherever a RUN is: a model folder, a Lightning checkpoint (.ckpt), or
a Hub id `user/name[@revision]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..files import whole

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.md", "*.png", "*.yaml"]
"""What is taken from a Hub repository: no pickles, no code."""


@dataclass(frozen=True)
class Source:
    """A model that was found, not opened yet; `str(source)` is its name.

    Args:
        name: short name for messages and results.
        folder: its model folder; for a checkpoint that of its run, where the tokenizer is.
        results: where what is measured of it belongs.
        checkpoint: the .ckpt that holds the weights, or None: the folder does.
    """

    name: str
    folder: Path
    results: Path
    checkpoint: Path | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def whole(self) -> Path:
        """Where the files of its model are whole, also after a save that was killed."""
        return whole(self.folder)


def find(source: str | Path | Source) -> Source:
    """The model that a name stands for; an id that is no folder here is fetched from the Hub (or
    its cache).

    What is measured goes to `results` in the folder, for a checkpoint to `results/STEM` in its
    run's folder, for a Hub id to `results/user/name[@revision]` in the working directory.

    Raises:
        ValueError: if there is no such model, or the Hub cannot be reached.
    """
    if isinstance(source, Source):
        return source
    path, text = Path(source), str(source)
    if path.is_dir():
        return Source(path.resolve().name, path, path / "results")
    if path.suffix == ".ckpt":
        return _checkpoint(path)
    if path.is_file():
        raise ValueError(
            f"{text!r} is neither a model folder nor a .ckpt of textdiff: give the folder that "
            "holds model.safetensors; other kinds of weights are not opened"
        )
    name, _, revision = text.partition("@")
    if not HUB_ID.fullmatch(name) or ".." in revision:
        raise ValueError(
            f"there is no model folder {text!r}: give the folder that `textdiff fit` wrote, a "
            ".ckpt in its checkpoints, or a Hub id user/name[@revision]"
        )
    return Source(text, _fetch(text, name, revision or None), Path("results") / text)


def _checkpoint(path: Path) -> Source:
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {str(path)!r}: check the path")
    for folder in (path.parent, path.parent.parent):
        if (whole(folder) / "config.json").is_file():
            return Source(
                f"{folder.resolve().name}/{path.name}", folder, folder / "results" / path.stem, path
            )
    raise ValueError(
        f"{str(path)!r} stands alone: a checkpoint holds no tokenizer, so keep it in "
        "RUN/checkpoints or beside the config.json and the tokenizer of its run"
    )


def _fetch(text: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(f"there is no model folder {text!r} here, and the Hub does not give it"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=FETCHED))


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn every way in which the Hub refuses or is out of reach into a ValueError that begins with
    `what` and says what to do.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

    try:
        yield
    except (
        HTTPError,
        OSError,
        RuntimeError,
    ) as error:  # HTTPError: no connection, too; RuntimeError: an upload that broke off
        response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, LocalTokenNotFoundError) or (
            response is not None and response.status_code in (401, 403, 404)
        ):
            remedy = (
                "check the name, and log in with `hf auth login` or set HF_TOKEN (with write "
                "access, to push)"
            )
        else:
            remedy = (
                "check the name and the network, and unset HF_HUB_OFFLINE unless it is cached; "
                "then run the same again"
            )
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{what} ({reason[0]}): {remedy}") from error
