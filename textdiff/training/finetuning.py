"""Begin a training with the weights of a trained model, or go on with a checkpoint: are they those
of this network?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..data.tokenizers import tokenizer_hash
from ..model.model import Model
from ..model.trained import Prediction
from ..network import Architecture
from ..objective import Objective
from ..process import Process
from ..spec import build, classes_of, describe

SHAPELESS = {
    "dropout",
    "attention",
    "dtype",
    "transformers_version",
    "architectures",
    "_name_or_path",
}
"""Entries of a network's config that say nothing of its weights."""
UNIMPORTANT = ("dropout", "attention", "checkpoint", "config")
"""The same for the arguments of an architecture."""


def architecture(origin: Model) -> Architecture:
    """The shape of a model's network; a ValueError if that has no name in a config."""
    shape = getattr(origin.network, "architecture", None)
    if shape is None:
        raise ValueError(
            f"init_from holds a {type(origin.network).__name__}, whose shape is not known here: "
            "state model.network"
        )
    return shape


def give(
    origin: Model, network: Any, tokenizer: PreTrainedTokenizerFast, prediction: Prediction
) -> None:
    """Copy the weights of `origin` into a network.

    Raises:
        ValueError: if the tokenizer, the shape of the network or the meaning of its output is
            another.
    """
    theirs = tokenizer_hash(origin.tokenizer)
    ours = tokenizer_hash(tokenizer)
    if theirs != ours:
        raise ValueError(
            f"init_from has another tokenizer (sha256 {theirs[:12]}) than the data "
            f"(sha256 {ours[:12]}): use its own, "
            "--data.tokenizer textdiff.data.PretrainedTokenizer "
            "--data.tokenizer.name_or_path with its folder or Hub id"
        )
    shape = _shape(origin.network, origin.prediction)
    if differ := difference(shape, _shape(network, prediction)):
        raise ValueError(
            f"init_from holds another network: {differ}; state the same, or leave model.network out"
        )
    network.load_state_dict(origin.network.state_dict(), strict=True)


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What is not the same, in words; empty if all is.

    >>> difference({"layers": 2, "width": 8}, {"layers": 3, "width": 8})
    'layers 2 here 3'
    """
    return ", ".join(
        f"{name} {theirs.get(name)} here {ours.get(name)}"
        for name in theirs | ours
        if theirs.get(name) != ours.get(name)
    )


def _shape(network: Any, prediction: Prediction) -> dict[str, Any]:
    """What decides which weights a network has, how they are used and what comes out."""
    kept = {
        name: value for name, value in network.config.to_dict().items() if name not in SHAPELESS
    }
    return kept | {"predicts": str(prediction)}


def check_checkpoint(saved: dict[str, Any], parts: tuple[Architecture, Process, Objective]) -> None:
    """Are the hyperparameters of a checkpoint those of a network of these parts?

    Raises:
        ValueError: if not; it says what differs.
    """
    own = classes_of(*parts)
    theirs = meaning(saved["network"], saved["process"], saved["objective"], own)
    if differ := difference(theirs, meaning(*parts, own)):
        raise ValueError(
            f"the checkpoint holds a network of another architecture: {differ}; use its config.yaml"
        )


def meaning(network: Any, process: Any, objective: Any, classes: Sequence[type]) -> dict[str, Any]:
    """What decides which weights a network has and what they mean."""
    arguments = describe(build(network, Architecture, classes))["init_args"]
    kept = {name: value for name, value in arguments.items() if name not in UNIMPORTANT}
    sees_time = build(process, Process, classes).needs_time
    predicts = str(build(objective, Objective, classes).prediction)
    return {**kept, "sees t": sees_time, "predicts": predicts}
