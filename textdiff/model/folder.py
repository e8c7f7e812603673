"""The model folder (RUN): model.safetensors, config.json, the tokenizer; written atomically, opened
strictly.

`load` opens a checkpoint or a Hub id as well (`model.source`). Nothing that is opened is ever
run.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from ..denoiser.prediction import Prediction
from ..files import new_files, read_json, reason, sha256, write_json
from ..generation.config import GenerationConfig
from ..hyperschedule import Hyperschedule
from ..objective import Measured
from ..objective.batch import goes_on
from ..process import Process
from ..spec import build, describe
from . import checkpoint, reference
from .model import Model
from .source import Source, find
from .travelling import TOKENIZER as TOKENIZER_FILES
from .weights import WEIGHTS, read, stored, write

TOKENIZER, CONFIG = "tokenizer.json", "config.json"
GENERATION, REFERENCE = "generation_config.json", "reference.json"
VERSION = version("textdiff")
FORMAT = 1  # of the folder: raised when an older textdiff would misread it
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def save(model: Model, folder: str | Path, weights: Mapping[str, Tensor] | None = None) -> Path:
    """Write a model folder. Until all of it is written, and after a kill at any moment, the folder
    holds the model that was there before, or this one.

    Args:
        model: what to save; its network must be one of `textdiff.network`.
        folder: where to; made if missing.
        weights: state dict to write instead of the network's own (the EMA).

    Raises:
        ValueError: before anything is written, if `load` would refuse it.
    """
    folder = Path(folder)
    state = stored(model.network, weights)
    with new_files(folder, (GENERATION, CONFIG), own=TOKENIZER_FILES) as fresh:
        write(state, fresh / WEIGHTS)
        model.tokenizer.save_pretrained(fresh)
        write_json(fresh / GENERATION, model.generation_config.as_dict())
        sums = {name: sha256(fresh / name) for name in (WEIGHTS, TOKENIZER)}
        network = model.network.config.to_dict()
        write_json(fresh / CONFIG, network | {"textdiff": _described(model) | {"sha256": sums}})
    return folder


def _described(model: Model) -> dict[str, Any]:
    """What config.json says of a model beside its network, as plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "process": describe(model.process),
        "hyperschedule": describe(model.hyperschedule),
        "prediction": str(model.prediction),
        "length": model.length,
        "documents": model.documents,
        "bos_at_borders": model.bos_at_borders,
        "data": model.data,
    }


def _read_config(folder: Path, classes: Sequence[type]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json says of the network, and of all else; networks are textdiff's or the
    caller's own.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{str(folder)!r} holds no {CONFIG}: it is no model folder, or its training has not "
            "saved a model yet"
        )
    config = read_json(folder / CONFIG)
    kind = config.get("model_type") if isinstance(config, dict) else None
    # `textdiff.network` registers its own.
    known = CONFIG_MAPPING[kind] if isinstance(kind, str) and kind in CONFIG_MAPPING else None
    is_ours = known is not None and (known.__module__.startswith("textdiff.") or known in classes)
    ours = config.pop("textdiff", None) if is_ours else None
    if not isinstance(ours, dict):
        raise ValueError(f"{folder / CONFIG} describes no textdiff model (model_type {kind!r})")
    if ours.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{folder / CONFIG} has format {ours['format']!r}, written by textdiff "
            f"{ours.get('version')}; this is textdiff {VERSION}, which reads format {FORMAT}: "
            "install that version"
        )
    if missing := {"process", "hyperschedule", "prediction", "length", "sha256"} - ours.keys():
        raise ValueError(
            f"{folder / CONFIG} lacks {', '.join(sorted(missing))}: the folder is corrupt, write "
            "it again"
        )
    return config, ours


def _check_file(folder: Path, name: str, expected: dict[str, str]) -> None:
    path = folder / name
    if not path.is_file():
        pickles = (
            sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
            if name == WEIGHTS
            else []
        )
        seen = (
            f"; {', '.join(pickles)} may be pickles, which can run code and are not opened"
            if pickles
            else ""
        )
        raise ValueError(
            f"{str(folder)!r} holds no {name}: the folder is half-written, copy or write it "
            f"again{seen}"
        )
    if sha256(path) != expected.get(name):
        raise ValueError(
            f"{path} is not the file that {CONFIG} was written for: corrupt or half-written, write "
            "it again"
        )


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the tokenizer in {str(folder)!r} cannot be read ({reason(error)}): "
            "copy or write the folder again"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"{folder / TOKENIZER} is not one of the tokenizers library's")
    return tokenizer


class _Rules(NamedTuple):
    """How a model's documents were put into rows: `documents` and `bos_at_borders` of `Trained`,
    and what else config.json says of its data.
    """

    documents: str
    bos_at_borders: bool
    data: dict[str, Any]


def _rules(ours: dict[str, Any], schedule: Hyperschedule, network: Any, eos: int) -> _Rules:
    """What a model's config.json says of its documents.

    Models that do not say `documents` beside their schedule were trained before calls were kept
    from seeing where documents end. Under quenched AR they saw no more than what had settled, so
    nothing changes but that a BOS stood where a document began. All others are drawn as they were,
    and measured without that sight.
    """
    data = ours.get("data", {})
    if "documents" in ours:
        return _Rules(ours["documents"], ours.get("bos_at_borders", False), data)
    documents = data.get("documents", "joined")
    plan = schedule.plan(ours["length"])
    if documents == "separate" and plan.one_by_one:
        return _Rules(documents, network.shifted and network.bos != eos, data)
    changed = {}
    if documents == "separate":
        documents = changed["documents"] = "joined"
    if data.get("padding") == "ignored" and not goes_on(plan):
        changed["padding"] = "learnt"
    if changed:
        was = ", ".join(f"{name}: {data[name]}" for name in changed)
        now = ", ".join(f"{name}: {value}" for name, value in changed.items())
        warnings.warn(
            f"this model was trained with {was}, when attention was shown where documents end and "
            f"its bounds were none; it is drawn as before and measured with {now}. Train it again "
            "for numbers that say what it can do",
            stacklevel=3,
        )
    return _Rules(documents, False, data | changed)


def _read_generation_config(path: Path, classes: Sequence[type]) -> GenerationConfig:
    if not path.is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_dict(read_json(path), classes)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be used ({error}): correct it, or delete it for the defaults"
        ) from None


def load(source: str | Path | Source, verify: bool = False, classes: Sequence[type] = ()) -> Model:
    """Open a model strictly: every weight must be there, whole, and of the shape that the config
    says.

    Args:
        source: a model folder, a .ckpt in the checkpoints of its run, or a Hub id
            `user/name[@revision]`.
        verify: compute the reference bounds that `textdiff export` stored with the model again.
        classes: the caller's own processes, hyperschedules, samplers, ... that the model may be
            made of; no other class outside textdiff is built.

    Raises:
        ValueError: if it is missing, corrupt, half-written, of another kind or version, made of a
            class that is not in `classes`, or does not give its reference bounds.
    """
    place = find(source)
    folder = place.whole
    config, ours = _read_config(folder, classes)
    _check_file(folder, TOKENIZER, ours["sha256"])
    if place.checkpoint is None:
        _check_file(folder, WEIGHTS, ours["sha256"])
        process = build(ours["process"], Process, classes)
        schedule = build(ours["hyperschedule"], Hyperschedule, classes)
        prediction = Prediction(ours["prediction"])
        network = read(folder / WEIGHTS, config)
    else:
        network, process, schedule, prediction = checkpoint.parts(place.checkpoint, classes)
    tokenizer = _read_tokenizer(folder)
    rules = _rules(ours, schedule, network, eos=tokenizer.eos_token_id)
    model = Model(
        network.eval(),
        process,
        schedule,
        tokenizer=tokenizer,
        length=ours["length"],
        prediction=prediction,
        data=rules.data,
        documents=rules.documents,
        bos_at_borders=rules.bos_at_borders,
        generation_config=_read_generation_config(folder / GENERATION, classes),
    )
    if verify:
        stored = place.folder / REFERENCE
        if place.checkpoint is not None or not stored.is_file():
            raise ValueError(
                f"{place} holds no {REFERENCE} to verify it by: `textdiff export` writes one"
            )
        reference.check(model, read_json(stored), str(stored))
    return model


def measure(
    model: Model | str | Path | Source, texts: str | Sequence[str], **options: Any
) -> list[Measured]:
    """`Model.measure` of a model, or of what `load` takes.

    Args:
        model: a model, its folder, a .ckpt or a Hub id.
        texts: a document or several.
        options: those of `Model.measure`.
    """
    opened = model if isinstance(model, Model) else load(model)
    return opened.measure(texts, **options)
