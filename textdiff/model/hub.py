"""Share a model: `export` writes the folder that travels, `push` uploads just that folder to the
Hugging Face Hub.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..files import new_folder, read_json, sha256, write_json
from . import card, reference, travelling
from .folder import CONFIG, REFERENCE, VERSION, load, save
from .model import Model
from .source import Source, find, hub_errors
from .weights import WEIGHTS

CARD, UNKNOWN = "README.md", "unknown"


def _drop_others(folder: Path) -> None:
    """Take out results that were measured of other weights than those that travel."""
    ours, others = sha256(folder / WEIGHTS), []
    for path, result in card.results(folder):
        if result["weights_sha256"] != ours:
            path.unlink()
            others.append(str(path.relative_to(folder)))
    if others:
        warnings.warn(
            f"left out, since measured of other weights: {', '.join(others)}", stacklevel=4
        )


def _card(model: Model, folder: Path, name: str, license: str | None) -> str | None:
    """A new card, or None if there is one that a person has written or changed."""
    path, stored = folder / CARD, folder / REFERENCE
    if not path.exists():
        return card.render(model, folder, name, license or UNKNOWN)
    written = read_json(stored).get("card_sha256") if stored.exists() else None
    if sha256(path) == written:
        return card.render(model, folder, name, license or card.license_of(path) or UNKNOWN)
    if license is not None:
        raise ValueError(
            f"{CARD} is not the one that textdiff wrote, and is kept as it is: state the license "
            f"{license!r} there"
        )
    return None


def _write(model: Model, source: Source, folder: Path, name: str, *, license: str | None) -> None:
    """Everything that travels, into an empty folder."""
    travelling.copy(source.folder, folder)
    if source.checkpoint is not None:
        save(replace(model, data=travelling.at_home(model.data)), folder)
    _drop_others(folder)
    stored = {"textdiff": VERSION, "rows": reference.ROWS, "tolerance": reference.TOLERANCE}
    stored["bounds"] = reference.compute(model)
    if (text := _card(model, folder, name, license)) is not None:
        (folder / CARD).write_text(text, encoding="utf-8")
        stored["card_sha256"] = sha256(folder / CARD)
    write_json(folder / REFERENCE, stored)


def export(
    source: str | Path | Source,
    folder: str | Path,
    name: str | None = None,
    license: str | None = None,
    classes: Sequence[type] = (),
) -> Path:
    """Write the folder that travels: the model, its reference bound, its model card and the results
    measured of it.

    The folder appears whole or not at all. Only files that `model.travelling` lists are in it, and
    paths in them are cut to their last part: texts, predictions, checkpoints and config.yaml stay
    at home. A README.md that a person has written or changed is kept
    as it is.

    Args:
        source: a model folder, a .ckpt or a Hub id.
        folder: where to; missing or empty.
        name: what the card tells a reader to load; default: the folder.
        license: of the weights, an identifier of the Hub such as apache-2.0; default: that of the
            source's card, else unknown.
        classes: the caller's own classes that the model may be made of, as for `load`.

    Raises:
        ValueError: if the source is no whole model, or the folder is in use or inside the source.
    """
    place, folder = find(source), Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"{str(folder)!r} is there already: name another folder, or remove it first"
        )
    if folder.resolve().is_relative_to(place.folder.resolve()):
        raise ValueError(
            f"{str(folder)!r} lies inside the model's own folder: name one outside of it"
        )
    # Strictly, on the CPU and in float32, as a reader will have it.
    model = load(place, classes=classes)
    with new_folder(folder) as fresh:
        _write(model, place, fresh, name or str(folder), license=license)
    return folder


def contents(folder: Path) -> list[tuple[str, int]]:
    """Relative path and bytes of every file in a folder, config.json last: without it the others
    are no model.
    """
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: (path.name == CONFIG, path),
    )
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def push(
    source: str | Path | Source,
    name: str,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,
    classes: Sequence[type] = (),
) -> str:
    """Upload just the folder that `export` writes to the Hub, as one commit; nothing here changes,
    and nothing there is deleted.

    Args:
        source: a model folder, a .ckpt or a Hub id.
        name: `user/name` of the repository; made if missing.
        private: make it private.
        revision: branch to commit to, made if missing; default: main.
        license: as for `export`.
        classes: as for `export`.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: if the source is no whole model, the name is no id, or the Hub refuses or is out
            of reach.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="textdiff", library_version=VERSION)
    with (
        staged(source, name, revision, license, classes=classes) as folder,
        hub_errors(f"{name} was not pushed; here nothing has changed"),
    ):
        api.create_repo(name, private=private or None, exist_ok=True)
        if private and not api.model_info(name).private:
            raise ValueError(
                f"{name} is there already and public: nothing was uploaded; make it private on the "
                "Hub first"
            )
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        message = f"Model exported by textdiff {VERSION}"
        return str(
            api.upload_folder(
                repo_id=name, folder_path=folder, revision=revision, commit_message=message
            ).commit_url
        )


@contextmanager
def staged(
    source: str | Path | Source,
    name: str,
    revision: str | None,
    license: str | None,
    classes: Sequence[type] = (),
) -> Iterator[Path]:
    """The folder that a push uploads, exported for as long as it lasts.

    Raises:
        ValueError: if the name is no `user/name` of the Hub; and as `export`.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no user/name of the Hub: {error}") from None
    if "/" not in name:
        raise ValueError(f"{name!r} is no user/name of the Hub: say whose, such as me/{name}")
    with tempfile.TemporaryDirectory(prefix="textdiff-push-") as temporary:
        shown = name if revision is None else f"{name}@{revision}"
        folder = Path(temporary) / "model"
        yield export(source, folder, shown, license=license, classes=classes)
