"""What a harness asks of a language model: log-likelihoods of continuations and of whole texts,
greedy or drawn continuations.

For an autoregressive model log p is exact. For every other model it is a lower bound, the negative
of

    -log p(continuation | context) <= NELBO over the continuation's tokens, the context's tokens
    clean in every call,

where p is the law of the chain whose context is clamped, the one that `generate` draws from with a
prompt: that of the T-step chain for block and slide schedules, its limit of many steps for flat
ones and for log-scores. It is no bound on the conditional of the model of whole texts, which
differs where the context would settle together with the continuation. Of two continuations the one
with the higher bound need not be the likelier. The estimate is a mean over draws of the noise, with
its standard error.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..denoiser.prediction import require
from ..generation.config import GenerationConfig
from ..generation.engine import denoise
from ..model.chain import chain_bound
from ..model.model import Model
from ..model.text import added
from ..noise import Noise
from ..objective import Batch, chain_rule
from ..objective.bounds import Bound
from ..objective.halves import check_draws, halves
from ..samplers import Ancestral, filters

GREEDY = 1e-4  # the temperature of greedy choices


@dataclass(frozen=True)
class Question:
    """Tokens whose log-likelihood is asked: `context` may be empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Both."""
        return self.context + self.continuation

    @property
    def number(self) -> int:
        """Names the question for the noise: a hash of its tokens, so that no answer depends on the
        other questions.
        """
        digest = hashlib.sha256(repr((self.context, self.continuation)).encode()).digest()
        return int.from_bytes(digest[:5], "big")


@dataclass(frozen=True)
class Answer:
    """Log p of a continuation in nats, exact (standard error 0) or a lower bound, estimated;
    `tokens` that were scored.
    """

    nats: float
    standard_error: float
    tokens: int


def encode(model: Model, context: str, continuation: str) -> Question:
    """Tokens of both texts together, cut where the context's own tokens end; blanks at its end go
    to the continuation.

    The context loses tokens at its left where both are longer than the training length.

    Raises:
        ValueError: if the continuation has no tokens, or more than the training length.
    """
    kept = context.rstrip()
    both = model.tokenizer.encode(context + continuation, add_special_tokens=False)
    cut = len(model.tokenizer.encode(kept, add_special_tokens=False)) if kept else 0
    target = both[cut:]
    if not 1 <= len(target) <= model.length:
        raise ValueError(
            f"the continuation {continuation!r} has {len(target)} tokens: "
            f"1..{model.length} can be scored"
        )
    return Question(tuple(both[max(0, len(both) - model.length) : cut]), tuple(target))


def windows(model: Model, text: str) -> list[Question]:
    """A text of any length as disjoint pieces of the training length, none of which sees the
    others.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    return [
        Question((), tuple(ids[begin : begin + model.length]))
        for begin in range(0, len(ids), model.length)
    ]


def is_exact(model: Model) -> bool:
    """Whether log p is exact: one token a call, from left to right, each from a prior that tells
    nothing (the chain rule).
    """
    return chain_rule.is_exact(model.network, model.process, model.hyperschedule, model.length)


def described(model: Model, draws: int) -> str:
    """What the log-likelihoods are."""
    if is_exact(model):
        return "exact log p (chain rule)"
    steps = chain_bound(model, model.hyperschedule, model.length)[1]
    return (
        f"lower bound on log p of the chain of {steps} steps with clamped context: "
        f"-NELBO, mean of {draws} draws of the noise"
    )


@torch.no_grad()
def log_likelihoods(
    model: Model,
    questions: Sequence[Question],
    draws: int = 16,
    seed: int = 0,
    batch_size: int = 32,
) -> list[Answer]:
    """Log p of every continuation given its context; see the top of this page for what it is.

    Half of the draws of a question are independent of the other half: the standard error is half
    their difference, which is rough for one question and right in the mean over many.

    Args:
        model: the model, under its own hyperschedule.
        questions: from `encode` or `windows`.
        draws: noisy versions of each question, even; 1 where log p is exact.
        seed: key of the noise.
        batch_size: questions per network call; changes no result.

    Raises:
        ValueError: if `draws` is odd or below 2.
    """
    check_draws(draws)
    answers: dict[Question, Answer] = {}
    by_length: dict[int, list[Question]] = {}
    for question in dict.fromkeys(questions):
        by_length.setdefault(len(question.ids), []).append(question)
    for same in by_length.values():
        for begin in range(0, len(same), batch_size):
            part = same[begin : begin + batch_size]
            answers |= zip(part, _answers(model, part, draws, seed), strict=True)
    return [answers[question] for question in questions]


def _bound(model: Model, L: int) -> Bound:
    """What is estimated for questions of L tokens."""
    nelbo = chain_bound(model, model.hyperschedule, L)[0]
    return chain_rule.ChainRule.of(nelbo) if is_exact(model) else nelbo


def _answers(model: Model, part: list[Question], draws: int, seed: int) -> list[Answer]:
    """The answers to questions of one length."""
    ids = torch.tensor([question.ids for question in part], device=model.device)
    context = torch.tensor([len(question.context) for question in part], device=model.device)
    example = torch.tensor([question.number for question in part], device=model.device)
    batch = Batch(
        ids,
        example,
        slot=example,
        known=torch.arange(ids.shape[-1], device=model.device) < context[:, None],
    ).apart(model.apart)
    bound = _bound(model, ids.shape[-1])
    slots = 1 if bound.exact else draws // 2
    scored = halves(bound, model.network, batch, draws=draws, seed=seed, slots=slots).sequences
    return [
        Answer(-nats, error, len(question.continuation))
        for question, nats, error in zip(
            part, scored.mean.tolist(), scored.standard_error.tolist(), strict=True
        )
    ]


def greedy(model: Model, question: Question, seed: int = 0) -> bool:
    """Whether `generate` at temperature 1e-4 would give this continuation."""
    require(model.prediction, Ancestral.prediction, "greedy decoding")
    N, count = model.network.num_tokens, len(question.continuation)
    given = torch.tensor([[*question.context, *[N] * count]], device=model.device)
    noise = Noise(seed, torch.tensor([question.number], device=model.device))
    cold = filters.temperature(GREEDY)
    done = denoise(
        model.network,
        model.process,
        model.hyperschedule,
        Ancestral(),
        noise,
        ids=given,
        filter=cold,
        apart=model.apart,
    )
    return tuple(done.ids[0, len(question.context) :].tolist()) == question.continuation


def total(answers: Sequence[Answer]) -> Answer:
    """Log p of the pieces of one text together."""
    error = math.sqrt(sum(answer.standard_error**2 for answer in answers))
    return Answer(
        sum(answer.nats for answer in answers), error, sum(answer.tokens for answer in answers)
    )


def continuations(
    model: Model,
    contexts: Sequence[str],
    most: int,
    until: Sequence[str],
    temperature: float,
    seed: int = 0,
    batch_size: int = 16,
) -> list[str]:
    """Text drawn after each context, in sequences of the training length: at most `most` tokens, up
    to the first of `until`.

    A context keeps its last tokens, so that `most` fit behind it.
    """
    ids = [model.encode(context).tolist()[-(model.length - most) :] for context in contexts]
    samples = model.generate(
        ids,
        GenerationConfig(
            max_length=model.length, temperature=temperature, seed=seed, batch_size=batch_size
        ),
    )
    texts = []
    for row, before in zip(samples.ids, ids, strict=True):
        drawn = row[len(before) :][:most].tolist()
        text = added(model.tokenizer, before, drawn, skip_special_tokens=True)
        ends = [place for stop in until if stop and (place := text.find(stop)) >= 0]
        texts.append(text[: min(ends)] if ends else text)
    return texts
