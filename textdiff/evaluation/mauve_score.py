"""MAUVE between two sets of texts from features that we compute, over several k-means seeds, with a
human-against-human ceiling.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import new_file
from .judge import Judge

KMEANS_SEEDS = 5  # the fewest: one seed alone is noise
ADVISED = 1000  # samples, below which MAUVE's authors warn of its bias


@dataclass(frozen=True)
class Mauve:
    """MAUVE over k-means seeds.

    Args:
        mauve: mean over the seeds, in (0, 1]; 1 where the two sets cannot be told apart.
        sd: standard deviation over the seeds: noise of the clustering, not of the draw of the
            texts.
        star: mean of MAUVE*, from Krichevsky-Trofimov smoothed histograms: less biased at few
            samples.
        star_sd: its standard deviation over the seeds.
    """

    mauve: float
    sd: float
    star: float
    star_sd: float

    def as_dict(self) -> dict[str, float]:
        """Its numbers under the names that files use."""
        return {
            "mauve": self.mauve,
            "sd": self.sd,
            "mauve_star": self.star,
            "mauve_star_sd": self.star_sd,
        }


def features(
    judge: Judge,
    texts: Sequence[str],
    max_tokens: int,
    cache: Path | None = None,
    batch_size: int = 8,
) -> Tensor:
    """`judge.features`, computed once per (judge, texts, length) and kept in the folder `cache`, if
    there is one.

    Raises:
        ValueError: if what is kept there is no tensor.
    """
    if cache is None:
        return judge.features(texts, max_tokens, batch_size)
    key = json.dumps([judge.sha256, str(judge.network.dtype), max_tokens, list(texts)])
    place = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt"
    if not place.exists():
        with new_file(place) as aside:
            torch.save(judge.features(texts, max_tokens, batch_size), aside)
    try:
        return torch.load(place, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{place} holds other things than numbers, which are not opened: remove it"
        ) from None


def checked_buckets(n: int, buckets: int | None, seeds: int) -> int:
    """The number of buckets, by default n/10 as in mauve-text; warns of too few samples.

    Raises:
        ValueError: for fewer than 5 seeds, fewer than 2 buckets or fewer than 2 samples a bucket.
    """
    buckets = max(2, n // 10) if buckets is None else buckets
    if seeds < KMEANS_SEEDS:
        raise ValueError(
            f"{seeds} k-means seeds are too few: MAUVE varies with the seed, take at least "
            f"{KMEANS_SEEDS}"
        )
    if buckets < 2 or n < 2 * buckets:
        raise ValueError(
            f"{n} samples are too few for {buckets} buckets: take at least 2 buckets and 2 samples "
            "for each"
        )
    if n < ADVISED:
        warnings.warn(
            f"MAUVE of {n} samples in {buckets} buckets is biased and only good for comparison at "
            f"the same numbers: take {ADVISED} samples or more",
            stacklevel=3,
        )
    return buckets


def _area(curve: Any, name: str) -> float:
    """MAUVE of one clustering: 1 for equal histograms, where mauve-text 0.4.0 sorts points of equal
    abscissa and may give 0.75.
    """
    if abs(curve.p_hist - curve.q_hist).max() < 1e-9:
        return 1.0
    return float(getattr(curve, name))


def mauve(p: Tensor, q: Tensor, buckets: int, seeds: int = KMEANS_SEEDS) -> Mauve:
    """MAUVE of two sets of features, through mauve-text (GPLv3, extra `eval`).

    Args:
        p, q: [n, D] features of the reference and of the samples.
        buckets: k of the k-means that both sets are quantised with.
        seeds: how many k-means seeds, 0, 1, ...

    Raises:
        ValueError: if mauve-text is not installed.
    """
    try:
        import faiss
        from mauve import compute_mauve
    except ImportError as error:
        raise ValueError(
            f"MAUVE needs mauve-text ({error}): pip install 'textdiff[eval]'"
        ) from None
    faiss.omp_set_num_threads(1)  # on small sets threads only get in each other's way
    curves = [
        compute_mauve(
            p_features=p.numpy(),
            q_features=q.numpy(),
            num_buckets=buckets,
            seed=seed,
            verbose=False,
        )
        for seed in range(seeds)
    ]
    plain = torch.tensor([_area(curve, "mauve") for curve in curves]).double()
    star = torch.tensor([_area(curve, "mauve_star") for curve in curves]).double()
    if not (plain.isfinite().all() and star.isfinite().all()):
        raise ValueError(
            f"MAUVE of {len(p)} and {len(q)} texts in {buckets} buckets is not a number: take "
            "fewer buckets or more texts"
        )
    return Mauve(float(plain.mean()), float(plain.std()), float(star.mean()), float(star.std()))


def against_humans(
    judge: Judge,
    texts: Sequence[str],
    humans: Sequence[str],
    max_tokens: int,
    buckets: int | None = None,
    seeds: int = KMEANS_SEEDS,
    cache: Path | None = None,
    batch_size: int = 8,
) -> dict[str, Any]:
    """MAUVE of n samples against n human texts, and of n other human texts against the same.

    Args:
        judge: makes the features.
        texts: n samples; their first `max_tokens` tokens count.
        humans: 2n texts of `max_tokens` tokens; the first n are the reference, the others the
            ceiling.
        max_tokens: text length, in tokens of the judge.
        buckets: default: n/10, as in mauve-text.
        seeds: k-means seeds, at least 5.
        cache: folder for features.
        batch_size: texts per network call.

    Raises:
        ValueError: if there are too few texts for the buckets, or too few human texts.
    """
    n = len(texts)
    buckets = checked_buckets(n, buckets, seeds)
    if len(humans) != 2 * n:
        raise ValueError(
            f"{n} samples need {2 * n} human texts, reference and ceiling, got {len(humans)}"
        )
    lengths = [len(ids) for ids in judge.encode(texts, max_tokens)[0]]
    if (shorter := sum(length < max_tokens for length in lengths)) > n / 20:
        fitting = sorted(lengths)[n // 20]
        warnings.warn(
            f"{shorter} of {n} samples have fewer than the {max_tokens} tokens of the human "
            f"texts, and MAUVE sees length: choose a text length of at most {fitting}",
            stacklevel=2,
        )
    samples = features(judge, texts, max_tokens, cache, batch_size)
    human = features(judge, humans, max_tokens, cache, batch_size)
    reference = human[:n]
    return {
        **mauve(reference, samples, buckets, seeds).as_dict(),
        "human": mauve(reference, human[n:], buckets, seeds).as_dict(),
        "samples": n,
        "shorter_samples": shorter,
        "text_length": max_tokens,
        "buckets": buckets,
        "kmeans_seeds": list(range(seeds)),
        "features": judge.as_dict(),
    }
