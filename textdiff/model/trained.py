"""A network and all that it was trained with; what can be done with it stands in `model`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ..data.tokenizers import num_tokens_of
from ..denoiser.prediction import Prediction
from ..generation.config import GenerationConfig
from ..hyperschedule import Hyperschedule, same_visibility
from ..network.base import DenoiserModel
from ..process import Process


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, num_tokens: int) -> None:
    """Raise a ValueError unless the tokenizer has just the network's N ordinary tokens."""
    size = num_tokens_of(tokenizer)
    if size != num_tokens:
        relation = "larger" if size > num_tokens else "smaller"
        raise ValueError(
            f"the tokenizer has {size} tokens, {relation} than the model's {num_tokens}: "
            "use the tokenizer the model was trained with"
        )


@dataclass(frozen=True)
class _Instead:
    """A hook of an embedding that is shown `fed` for `held`."""

    held: int
    fed: int

    def __call__(self, embedding: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        (ids,) = arguments
        return (torch.where(ids == self.held, self.fed, ids),)


@dataclass(frozen=True)
class Trained:
    """A network with the process, hyperschedule and tokenizer that it was trained with.

    Args:
        network: the denoiser over N = num_tokens_of(tokenizer) ordinary tokens.
        process: noising process it was trained with.
        hyperschedule: hyperschedule it was trained with.
        tokenizer: its tokenizer; MASK is not one of its tokens.
        length: L of the training sequences.
        prediction: what the logits mean.
        documents: joined, separate or single: how documents were put into rows. If separate, a call
            sees of what has settled only what stands behind the last EOS (`maths.md` 10.2), in
            every text that is drawn or scored.
        data: the corpus and packing it was trained on, as plain values.
        generation_config: the options of `generate` that this model is best drawn with.
        bos_at_borders: whether the network is fed its BOS where a row holds EOS, as earlier
            versions trained quenched AR of separate documents in the shifted layout.
    """

    network: DenoiserModel
    process: Process
    hyperschedule: Hyperschedule
    tokenizer: PreTrainedTokenizerFast
    length: int
    prediction: Prediction = Prediction.CAVITY
    data: dict[str, Any] = field(default_factory=dict)
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    documents: str = "joined"
    bos_at_borders: bool = False

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.network.num_tokens)
        if self.bos_at_borders:
            feed = _Instead(self.tokenizer.eos_token_id, self.network.bos)
            embedding = self.network.get_input_embeddings()
            if feed not in embedding._forward_pre_hooks.values():  # of a model that this is made of
                embedding.register_forward_pre_hook(feed)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.head_parameters()[0].device

    def to(self, device: str | torch.device) -> Self:
        """This model, its network moved to a device."""
        nn.Module.to(self.network, device)
        return self

    def compile(self) -> Self:
        """This model, its network's blocks run through `torch.compile`: a few graphs for calls of
        every shape, made at the first ones.

        It is for GPUs, whose many small kernels become few. On a CPU with one thread generation of
        a network of 6 x 256 took 0.97 to 1.08 times the time that it takes without.
        """
        self.network.compile()
        return self

    @property
    def apart(self) -> int | None:
        """The id that ends a document, if documents are kept apart."""
        return self.tokenizer.eos_token_id if self.documents == "separate" else None

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens at which a text may be said to end: the tokenizer's EOS, and those of the
        model that the network was made from.
        """
        eos = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(([] if eos is None else [eos]) + list(self.network.ends)))

    @property
    def mask_id(self) -> int:
        """The id N that marks a position to draw."""
        return self.network.num_tokens

    def warn_if_unseen(self, schedule: Hyperschedule, L: int) -> None:
        """Warn if calls under `schedule` see other contexts or windows than those of training."""
        if self.length < L:
            warnings.warn(
                f"{L} tokens are more than the {self.length} of training: "
                "later positions were never seen",
                stacklevel=3,
            )
        seen = self.hyperschedule.members
        if not all(any(_alike(one, new, L) for one in seen) for new in schedule.members):
            warnings.warn(
                f"this model was trained under {self.hyperschedule}; under {schedule} its calls "
                "see other contexts and windows than in training",
                stacklevel=3,
            )


def _alike(trained: Hyperschedule, schedule: Hyperschedule, L: int) -> bool:
    """Whether a network of one schedule knows what calls of another see."""
    if trained == schedule:
        return True
    return trained.fits(L) and schedule.fits(L) and same_visibility(trained, schedule, L)
