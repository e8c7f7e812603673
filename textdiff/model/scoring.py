"""How likely completions are: `Model.score`, each number with the name of the law that it is of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..hyperschedule import Hyperschedule
from ..objective import Batch, chain_rule
from ..objective.bounds import Bound
from ..objective.halves import check_draws, halves
from ..objective.orders import MOST, Orders
from .chain import chain_bound
from .requests import Prompt, literal
from .trained import Trained

SLOTS = 64  # draws of one completion that are stratified together


@dataclass(frozen=True)
class Score:
    """-log p of a completion given what stands around it.

    Args:
        nats: -log p where `exact`, else a bound on it from above, estimated.
        standard_error: of `nats`, Monte Carlo; None where nothing was drawn.
        exact: whether `nats` is -log p itself.
        law: whose p.
        tokens: that were scored, an end of text among them if it was asked for.
        calls: network calls, noisy versions of the text that were scored.
        text_bytes: UTF-8 bytes of the completion.
        sequential: whether p is over texts of any length; else it is given the number of tokens.

    >>> Score(math.log(4), None, True, "a law", tokens=1, calls=1, text_bytes=1).bits_per_byte
    2.0
    """

    nats: float
    standard_error: float | None
    exact: bool
    law: str
    tokens: int
    calls: int
    text_bytes: int | None
    sequential: bool = False

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of text; None for completions that were given as ids."""
        return self.nats / math.log(2) / self.text_bytes if self.text_bytes else None


@dataclass(frozen=True)
class Question:
    """Tokens to be scored between others: `known` [L] bool says which are given.

    `text_bytes` are those of the completion, None if it was given as ids; `suffix_bytes` likewise.
    """

    ids: tuple[int, ...]
    known: tuple[bool, ...]
    text_bytes: int | None = None
    suffix_bytes: int | None = None

    @property
    def number(self) -> int:
        """Names the question for the noise: a hash of it, so that no answer depends on others."""
        digest = hashlib.sha256(repr((self.ids, self.known)).encode()).digest()
        return int.from_bytes(digest[:5], "big")

    @property
    def tokens(self) -> int:
        """How many are scored."""
        return len(self.ids) - sum(self.known)


def question(
    model: Trained, prompt: Prompt, completion: Prompt, suffix: Prompt, eos: bool
) -> Question:
    """Prompt, completion and suffix as tokens; under AR what follows is scored, too.

    Raises:
        ValueError: if there is nothing to score.
    """
    before, middle = literal(model, prompt), literal(model, completion, begins=not prompt)
    after = literal(model, suffix, begins=False)
    if eos:
        if model.tokenizer.eos_token_id is None:
            raise ValueError("eos=True: this model's tokenizer has no end of text")
        middle = [*middle, model.tokenizer.eos_token_id]
    if not middle:
        raise ValueError(f"the completion {completion!r} has no tokens: there is nothing to score")
    known = [*[True] * len(before), *[False] * len(middle), *[True] * len(after)]
    sizes = [len(x.encode()) if isinstance(x, str) else None for x in (completion, suffix)]
    return Question((*before, *middle, *after), tuple(known), *sizes)


@torch.no_grad()
def score(
    model: Trained,
    prompts: Prompt | Sequence[Prompt],
    completions: Sequence[Prompt],
    *,
    suffix: Prompt | Sequence[Prompt] = "",
    order: str | None = "left to right",
    eos: bool = False,
    hyperschedule: Hyperschedule | None = None,
    draws: int = 16,
    seed: int = 0,
    batch_size: int = 32,
) -> list[Score]:
    """-log p(completion | prompt, suffix) of each completion, in nats, and which p that is.

        model.score("To be or", [" not to be", " to be"])

    Exact: autoregressive models, and models of masking along a stated order. Of the law of
    `generate` itself (`order=None`), a mixture over orders where the network does not see t, exact
    for at most 8 tokens in a group, else a mean over random orders, which bounds it. Other models:
    the bound of `measure` with prompt and suffix clamped. Where a suffix is not seen (every
    schedule but flat) it is scored with the completion: p(completion, suffix | prompt). Models that
    are not autoregressive are given the number of tokens: their numbers compare completions of one
    length.

    Args:
        model: the model.
        prompts: one for all completions, or one each; text or ids. `[MASK]` is text here.
        completions: what is scored.
        suffix: what stands behind, one for all or one each.
        order: of masking models, "left to right" or None for the law of `generate`.
        eos: whether the end of text that follows a completion is scored with it.
        hyperschedule: default: that of training.
        draws: noisy versions of each completion where a bound is estimated, even.
        seed: key of the noise.
        batch_size: completions per network call; changes no result.

    Raises:
        ValueError: if the numbers of prompts, completions and suffixes do not go together, a
            completion is empty, or an option is out of range.
    """
    if order not in ("left to right", None):
        raise ValueError(f"order must be 'left to right' or None, got {order!r}")
    check_draws(draws, 2 * SLOTS)
    count = len(completions)
    asked = [
        question(model, prompt, completion, after, eos)
        for prompt, completion, after in zip(
            _each("prompts", prompts, count),
            completions,
            _each("suffix", suffix, count),
            strict=True,
        )
    ]
    schedule = hyperschedule or model.hyperschedule
    asked = [_seen(model, one, schedule) for one in asked]
    alike: dict[tuple[bool, ...], list[Question]] = {}
    for one in dict.fromkeys(asked):
        alike.setdefault(one.known, []).append(one)
    answers: dict[Question, Score] = {}
    for same in alike.values():
        law = Law.of(model, schedule, order, len(same[0].ids))
        for begin in range(0, len(same), batch_size):
            part = same[begin : begin + batch_size]
            answers |= zip(part, _answers(model, part, law, draws=draws, seed=seed), strict=True)
    return [answers[one] for one in asked]


def _each(name: str, value: Prompt | Sequence[Prompt], count: int) -> list[Prompt]:
    """One for each completion.

    Raises:
        ValueError: if there are several, but not as many.
    """
    single = isinstance(value, str | torch.Tensor) or (bool(value) and isinstance(value[0], int))
    if single or not value:
        return [value] * count  # type: ignore[list-item]
    if len(value) != count:
        raise ValueError(
            f"{name} has {len(value)} entries for {count} completions: give one for all or one each"
        )
    return list(value)


def _seen(model: Trained, asked: Question, schedule: Hyperschedule) -> Question:
    """The question under a schedule: a suffix that is not seen is scored, too."""
    if schedule.plan(len(asked.ids)).flat:
        return asked
    first = asked.known.index(False)
    known = tuple(place < first for place in range(len(asked.ids)))
    both = (asked.text_bytes, asked.suffix_bytes)
    size = None if None in both else sum(size or 0 for size in both)
    return replace(asked, known=known, text_bytes=size)


def _answers(
    model: Trained, asked: list[Question], law: Law, *, draws: int, seed: int
) -> Iterator[Score]:
    """The scores of questions with the same known places, by the first way that is exact."""
    first, network, schedule = asked[0], model.network, law.schedule
    L = len(first.ids)
    example = torch.tensor([one.number for one in asked], device=model.device)
    known = torch.tensor([one.known for one in asked], device=model.device)
    ids = torch.tensor([one.ids for one in asked], device=model.device)
    orders = Orders(Batch(ids, example, example, known=known).apart(model.apart), schedule)
    errors: list[float] | list[None] = [None] * len(asked)
    exact, calls = True, orders.most
    if law.orders and law.order is not None:
        nats = orders.nats(network, orders.left_to_right())[0].sum(-1)
        name = "one token a call from left to right"
    elif law.orders and orders.most <= MOST:
        nats, calls = orders.mixture(network), 2**orders.most - 1
        name = "one token a call, all orders alike"
    else:
        bound, name = bound_of(model, law, L)
        pair = halves(bound, network, orders.batch, draws=draws, seed=seed, slots=SLOTS).sequences
        nats, exact = pair.mean, bound.exact
        calls = 1 if exact else draws * (orders.most if law.orders else 1)
        errors = errors if exact else pair.standard_error.tolist()
    told = f"{model.process} under {schedule}, {name}, {law.clamped} clamped"
    for one, value, error in zip(asked, nats.tolist(), errors, strict=True):
        yield Score(
            value,
            error,
            exact,
            told,
            tokens=one.tokens,
            calls=calls,
            text_bytes=one.text_bytes,
            sequential=law.sequential,
        )


@dataclass(frozen=True)
class Law:
    """Which p is asked for.

    Args:
        schedule: the hyperschedule.
        order: of masking models.
        sequential: whether the chain rule of an autoregressive model gives it.
        orders: whether it is a matter of orders.
        clamped: what is given.
    """

    schedule: Hyperschedule
    order: str | None
    sequential: bool
    orders: bool
    clamped: str

    @classmethod
    def of(cls, model: Trained, schedule: Hyperschedule, order: str | None, L: int) -> Law:
        """That of a model for sequences of L tokens."""
        given = (model.network, model.process, schedule, L)
        clamped = "prompt and suffix" if schedule.plan(L).flat else "prompt"
        exact, orders = chain_rule.is_exact(*given), chain_rule.has_orders(*given)
        return cls(schedule, order, exact, orders, clamped)


def bound_of(model: Trained, law: Law, L: int) -> tuple[Bound, str]:
    """The bound whose p is the law of `generate`, and what is said of it."""
    nelbo, steps = chain_bound(model, law.schedule, L)
    if law.sequential:
        return chain_rule.ChainRule.of(nelbo), "by the chain rule"
    if law.orders:
        many = chain_rule.RandomOrders.of(nelbo, nelbo.name)
        return many, "one token a call, a bound as the mean over orders"
    return nelbo, f"a bound of the chain of {steps} steps"
