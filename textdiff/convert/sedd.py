"""SEDD (Lou, Meng and Ermon): log-scores, one noise level per sequence.

Layout and arithmetic from the public code louaaron/Score-Entropy-Discrete-Diffusion at 0605786:
model/transformer.py (names, adaLN in blocks and output, scale_by_sigma, self-score 0), noise_lib.py
(log-linear σ, tail 1e-3), losses.py (t in [1e-3, 1]), utils.py (checkpoint.pth: model,
ema.shadow_params), configs/model/{small,medium}.yaml; config.json of louaaron/sedd-small on the Hub
at a18d6d3.
Unverified here: the weights, which cannot be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..denoiser.prediction import Prediction
from ..hyperschedule import Flat
from ..model.model import Model
from ..process import GammaHybrid, Process, Uniform
from .checkpoint import Checkpoint
from .layout import LAST, network, padding_note, vocabulary

TAIL = 1e-3  # of the log-linear σ
LEAST = 1e-3  # the least t of training
STEPS = 128  # sampling.steps of the published configurations
PREDICTS = (
    "Predicts log-scores: the bound is the exact score entropy in continuous time; cavity "
    "samplers and bounds refuse it."
)
"""A note that belongs to every network of log-scores."""


def seen_times(
    checkpoint: Checkpoint, tail: float, least: float, most: float = 1.0
) -> tuple[float, float]:
    """The least and the greatest 1 - e^{-σ} of training, where the authors' t ran from `least` to
    `most`.

    Raises:
        ValueError: if the noise schedule is not a known one.
    """
    kind = checkpoint.get("noise.type", default="loglinear")
    if kind == "loglinear":
        return (1 - tail) * least, (1 - tail) * most
    if kind == "geometric":
        low = checkpoint.number("noise.sigma_min")
        high = checkpoint.number("noise.sigma_max")
        first = low ** (1 - least) * high**least
        last = low ** (1 - most) * high**most
        return 1 - exp(-first), 1 - exp(-last)
    raise ValueError(
        f"noise.type is {kind!r}; a network that sees the noise level needs 'loglinear' or "
        "'geometric'"
    )


def scores_model(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    process: Process,
    mask: int | None,
    notes: Sequence[str],
    **level: Any,
) -> Model:
    """A network of log-scores that sees one noise level per sequence, as SEDD's code trains it.

    Args:
        checkpoint: weights and configuration.
        tokenizer: its tokenizer.
        process: the noise that it was trained with.
        mask: the row of MASK, see `layout.vocabulary`.
        notes: what is to be said of it, beside `PREDICTS`.
        level: fields of `DDiTConfig` about the level of the scores.
    """
    low, high = seen_times(checkpoint, TAIL, LEAST)
    vocab = vocabulary(checkpoint, tokenizer, mask)
    bos = tokenizer.bos_token_id
    body = network(checkpoint, vocab, bos, time="sequence", low=low, high=high, **level)
    return Model(
        network=body,
        process=process,
        hyperschedule=Flat(STEPS),
        tokenizer=tokenizer,
        length=checkpoint.length,
        prediction=Prediction.LOG_SCORE,
        data={"notes": [PREDICTS, *notes, *padding_note(checkpoint, vocab)]},
    )


def absorbing_scores(
    checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast, mask: int, scaled: bool
) -> Model:
    """A network of log-scores under absorbing noise, as SEDD's and MDLM's code train it."""
    notes = (
        "Trained on that bound between t = 0.001 and full noise; outside, the network is shown "
        "the nearest level it saw.",
        "GammaHybrid(gamma=0) is absorbing noise for a network that sees t. One level per "
        "sequence: flat schedules, no cache.",
    )
    level = {} if scaled else {"score_gamma": 0.0}
    return scores_model(checkpoint, tokenizer, GammaHybrid(gamma=0.0), mask, notes, **level)


def convert(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast) -> Model:
    """SEDD-absorb (small and medium) and SEDD-uniform.

    Raises:
        ValueError: if graph.type is neither "absorb" nor "uniform", or the weights do not fit.
    """
    graph = checkpoint.get("graph.type")
    scaled = bool(checkpoint.get("model.scale_by_sigma", default=False))
    if graph == "absorb":
        return absorbing_scores(checkpoint, tokenizer, LAST, scaled)
    if graph != "uniform" or scaled:
        raise ValueError(
            f"graph.type must be 'absorb', or 'uniform' without scale_by_sigma, got {graph!r}: is "
            "this SEDD's config?"
        )
    _, most = seen_times(checkpoint, TAIL, LEAST)
    tail = 1 - most
    note = (
        "Uniform noise: no MASK ever occurs, its embedding is 0. One level per sequence: flat "
        f"schedules, no cache. The process ends at the greatest sigma of training, {-log(tail):g}, "
        "and the bound has its prior term."
    )
    process = Uniform(tail)
    return scores_model(checkpoint, tokenizer, process, mask=None, notes=[note], tail=tail)
