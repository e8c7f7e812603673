"""Begin a training from the weights of a trained model: a folder, a .ckpt or a Hub id."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from .data.tokenizers import tokenizer_hash
from .hub import load
from .model import Model
from .network.protocol import Architecture
from .prediction import Prediction

SHAPELESS = {"dropout", "attention", "dtype", "transformers_version", "architectures", "_name_or_path"}
"""Entries of a network's config that say nothing of its weights."""


class Origin:
    """A trained model whose weights another training begins with; they are given once and then let go.

    Args:
        source: a model folder, a .ckpt or a Hub id.
    """

    def __init__(self, source: str):
        self.source = source
        self._model: Model | None = load(source)

    def architecture(self) -> Architecture:
        """The shape of its network; a ValueError if that has no name in a config."""
        found = getattr(self._model.network, "architecture", None)
        if found is None:
            raise ValueError(f"the shape of the network in {self.source!r} has no name in a config: state model.network")
        return found

    def give(self, network: nn.Module, tokenizer: PreTrainedTokenizerBase, prediction: Prediction) -> None:
        """Copy the weights into a network.

        Raises:
            ValueError: if the tokenizer, the shape of the network or the meaning of its output is another.
        """
        model, self._model = self._model, None
        theirs, ours = tokenizer_hash(model.tokenizer), tokenizer_hash(tokenizer)  # type: ignore[arg-type]
        if theirs != ours:
            raise ValueError(
                f"init_from {self.source!r} has another tokenizer (sha256 {theirs[:12]}) than the data (sha256 {ours[:12]}): use its own, "
                "--data.tokenizer textdiff.data.PretrainedTokenizer --data.tokenizer.name_or_path with that folder or Hub id"
            )
        given, here = _shape(model.network) | {"predicts": str(model.prediction)}, _shape(network) | {"predicts": str(prediction)}
        differ = [
            f"{name} {given.get(name)} here {here.get(name)}" for name in {**given, **here} if given.get(name) != here.get(name)
        ]
        if differ:
            raise ValueError(
                f"init_from {self.source!r} holds another network: {', '.join(differ)}; state the same, or leave model.network out"
            )
        network.load_state_dict(model.network.state_dict(), strict=True)  # type: ignore[attr-defined]


def _shape(network: Any) -> dict[str, Any]:
    """What decides which weights a network has and how they are used."""
    return {name: value for name, value in network.config.to_dict().items() if name not in SHAPELESS}
