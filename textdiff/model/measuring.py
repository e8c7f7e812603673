"""The bounds of a model on some text; `Model.measure` and `evaluate perplexity` are this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..hyperschedule import Hyperschedule
from ..objective import Batch
from ..objective.batch import check_packing
from ..objective.measured import Measured
from ..objective.measuring import Batches, estimate
from ..objective.stated import stated
from .trained import Trained


def length_of(batches: Iterable[Batch]) -> int:
    """L, the tokens of a row.

    Raises:
        ValueError: if there is no batch.
    """
    for batch in batches:
        return batch.ids.shape[-1]
    raise ValueError("there is no row to score: give a text that is not empty, and a limit above 0")


@torch.no_grad()
def measure_rows(
    model: Trained,
    batches: Batches,
    hyperschedule: Hyperschedule | None = None,
    *,
    discrete: bool = False,
    draws: int = 8,
    seed: int = 0,
    until_se: float | None = None,
    any_order: bool = False,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> list[Measured]:
    """Measure every bound that can be stated for a model on rows of tokens.

    All numbers are independent of the batch size.

    Args:
        model: the model.
        batches: makes an iterable of batches, on the model's device; called once per bound, and
            once more to look at the length.
        hyperschedule: default: that of training.
        discrete: the T-step bound of a flat schedule, the law of `generate`, instead of continuous
            time.
        draws: noisy versions of each sequence, even, at most 128.
        seed: key of the noise.
        until_se: spend more draws, up to 128, until the standard error of `nats` is no larger.
        any_order: also the chain rule along random orders, L calls each, where a bound is their
            mean.
        total: sums a tensor over all processes that share the rows.

    Raises:
        ValueError: if `draws` is odd or out of range, `until_se` not above 0, or there is no row;
            if `any_order` is asked of a model that has none.
    """
    L = length_of(batches())
    wanted = stated(
        model.network,
        model.process,
        hyperschedule or model.hyperschedule,
        L,
        prediction=model.prediction,
        discrete=discrete,
        any_order=any_order,
    )
    return [
        estimate(
            bound,
            model.network,
            batches,
            L,
            draws=draws,
            seed=seed,
            until_se=until_se,
            total=total,
        )
        for bound in wanted
    ]


def measure_texts(
    model: Trained,
    texts: str | Sequence[str],
    hyperschedule: Hyperschedule | None = None,
    *,
    discrete: bool = False,
    draws: int = 8,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Measured]:
    """Measure every bound that can be stated for a model on some texts: `Model.measure`.

        bound, *_ = model.measure(Path("book.txt").read_text())
        print(bound.perplexity, bound.name)

    Documents are put into rows of `model.length` tokens as the training text was, with an EOS at
    the end of each that is scored too. The numbers are those of `textdiff evaluate perplexity` on
    the same documents, whatever the batch size.

    Args:
        model: the model, with its own tokenizer.
        texts: a document or several.
        hyperschedule: default: that of training.
        discrete: the T-step bound of a flat schedule, the law of `generate`, instead of continuous
            time.
        draws: noisy versions of each row, even, at most 128.
        seed: key of the noise.
        batch_size: rows per network call.

    Raises:
        ValueError: if there is no text, `draws` is odd or out of range, or the tokenizer has no
            EOS; if the model's documents or padding do not go with the schedule.
    """
    from ..data.loading import EvalBatches
    from ..data.packing import pack
    from ..data.text_bytes import text_bytes
    from ..data.tokenising import tokenise

    if model.tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token to end documents with: set its eos_token")
    apart: Any = model.documents
    padding = model.data.get("padding", "learnt")
    schedule = hyperschedule or model.hyperschedule
    check_packing(schedule, model.length, apart, padding)
    documents = [texts] if isinstance(texts, str) else list(texts)
    packed = pack(
        tokenise(model.tokenizer, documents),
        model.length,
        model.tokenizer.eos_token_id,
        documents=apart,
        padding=padding,
    )
    parts = EvalBatches(packed, batch_size)

    def batches() -> Iterable[Batch]:
        for number in range(len(parts)):
            yield Batch.of({name: x.to(model.device) for name, x in parts[number].items()})

    model.warn_if_unseen(schedule, model.length)
    bounds = measure_rows(model, batches, hyperschedule, discrete=discrete, draws=draws, seed=seed)
    size = text_bytes(model.tokenizer, packed)
    return [replace(bound, text_bytes=size) for bound in bounds]
