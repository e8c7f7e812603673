"""HDLM (Fathi, Scholak and Noel), both families: hdlm-base-epsilon-* and hdlm-base-gamma-*.

Layout and arithmetic from the public code ServiceNow/hdlm at 409db62: hdlm/model/diffusion_lm.py
(names; no adaLN in the output;
γ: one σ per token, embedding mixed towards MASK's by e^{-γσ}, scale_by_sigma; mask index last),
gamma_hybrid/noise_lib.py (log-linear σ, tail 5e-3), metaschedule_utils.py (t in [1e-4, 1 - 1e-4]),
epsilon_hybrid/losses.py and run_train.py (`type`: aligned or shifted, loss), hf_utils.py (folder),
configs/; on the Hub config.json of hdlm-base-epsilon-0.0 and file sizes (649 and 678 MB: no adaLN
in the output). Unverified here: the weights, which cannot be downloaded, and whether they are
averaged or raw.
"""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..denoiser.prediction import Prediction
from ..hyperschedule import Block, Flat, Hyperschedule, Slide
from ..model.model import Model
from ..process import Absorbing, EpsilonHybrid, GammaHybrid, Process
from .checkpoint import Checkpoint
from .layout import LAST, network, padding_note, vocabulary
from .sedd import PREDICTS, seen_times

TAIL = 5e-3  # of the log-linear σ
LEAST = 1e-4  # the level of settled tokens
GAMMA_NOTES = (
    "Trained on a score entropy with e^sigma where e^{(1-gamma) sigma} and e^{gamma sigma} "
    "belong, which bounds nothing for 0 < gamma < 1 and teaches other ratios: the exact bound "
    "holds for this network, but it was not what training lowered.",
    "The process ends 0.5 % short of full noise, as published, and the bound has its prior term.",
)
"""What is to be said of a network of HDLM-γ."""


def _schedule(checkpoint: Checkpoint) -> tuple[Hyperschedule, list[str]]:
    """The hyperschedule of `annealing`, and in what its visibility differs."""
    length = checkpoint.length
    kind = checkpoint.get("annealing.type", default="none")
    width = int(checkpoint.number("annealing.width", default=length))
    levels = int(checkpoint.number("annealing.eval_tau", "annealing.tau", default=length))
    context = checkpoint.get("annealing.attention.context_type", default="causal")
    if kind in ("none", "None") or (kind == "block" and width >= length):
        return Flat(levels), []
    notes = []
    if context not in ("causal", "block_causal"):
        notes.append(f"Trained with {context} attention among settled tokens; here causal.")
    if kind == "hybrid":
        notes.append(
            "Trained on diagonals within blocks ('hybrid'); Block is the authors' schedule for "
            "evaluation."
        )
    if kind in ("block", "hybrid"):
        return Block(width, levels, block_causal=context == "block_causal"), notes
    if kind != "simple":
        raise ValueError(f"annealing.type must be none, block, simple or hybrid, got {kind!r}")
    rate = Fraction(width, levels)
    if context == "block_causal":
        notes.append(
            "Trained with block-causal settled tokens; here causal, the only order that a cache "
            "allows under a slide."
        )
    if levels != width:
        notes.append(
            "The authors' slide settles a rounded number of tokens per call, not always width/tau "
            f"= {rate}."
        )
    return Slide(width, str(rate)), notes


def _bounds_note(epsilon: float, lam: float) -> str:
    """Which bound applies to the network of a weighted cross-entropy (`maths.md` 4.3)."""
    if epsilon == 0:
        return (
            "Trained with epsilon = 0, on masked tokens alone: MDLM's NELBO is its bound; "
            "correcting samplers refuse it."
        )
    if lam == 0:
        return (
            "Trained with lambda = 0: B2 is its loss. It never learnt visible tokens: no "
            "correction, ignore the NELBO (B3)."
        )
    return (
        f"Trained on the weighted cross-entropy with lambda = {lam:g}, no bound for sampling with "
        "correction. Bounds that hold: B1 (masking alone, what the authors report), B2 (noisy "
        "display), NELBO (B3, correction in the last step). Its logits are the posterior for "
        "self-noise 1/2; they are turned into cavity logits exactly wherever they are used."
    )


def _epsilon(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    schedule: Hyperschedule,
    notes: list[str],
) -> Model:
    hybrid = checkpoint.get("training.loss_type", default="hybrid") == "hybrid"
    epsilon = checkpoint.number("training.epsilon") if hybrid else 0.0
    lam = checkpoint.number("training.lambda", default=0.1)  # the default of their code
    options: dict[str, Any] = {"time": "none"}
    notes = [*notes, _bounds_note(epsilon, lam)]
    if "shifted" in str(checkpoint.get("type", default="aligned")):
        options["shifted"] = True
        notes.append(
            "Shifted: trained only where the token in front is visible; rows behind a masked token "
            "are an extrapolation."
        )
    vocab = vocabulary(checkpoint, tokenizer, LAST)
    process: Process = Absorbing()
    if epsilon:
        process = EpsilonHybrid(epsilon)
        options["self_noise"] = 0.5
    body = network(checkpoint, vocab, tokenizer.bos_token_id, **options)
    notes += padding_note(checkpoint, vocab)
    return Model(body, process, schedule, tokenizer, checkpoint.length, data={"notes": notes})


def _gamma(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    schedule: Hyperschedule,
    notes: list[str],
) -> Model:
    graph = checkpoint.get("graph.type")
    if graph not in ("QGamma", "absorb"):
        raise ValueError(
            f"graph.type must be 'QGamma' or 'absorb', got {graph!r}: the published code knows no "
            "other with MASK"
        )
    gamma = checkpoint.number("graph.gamma") if graph == "QGamma" else 0.0
    if str(checkpoint.get("annealing.sampling_method", default="SAR")).startswith("AR"):
        raise ValueError(
            "a gamma network of an AR sampling_method zeroes the next token's score; its layout is "
            "not documented"
        )
    low, high = seen_times(checkpoint, TAIL, LEAST, 1 - LEAST)
    tail = TAIL if gamma > 0 else 0.0  # without shuffles full noise is MASK, and costs nothing
    sees = bool(checkpoint.get("model.transformer_sigma_conditioning", default=True))
    mixes = gamma > 0 and bool(checkpoint.get("model.hybrid_sigma_embedding", default=True))
    vocab = vocabulary(checkpoint, tokenizer, LAST)
    body = network(
        checkpoint,
        vocab,
        tokenizer.bos_token_id,
        time="token" if sees or mixes else "none",
        low=low,
        high=high,
        tail=tail,
        mix=gamma if mixes else 0.0,
        score_gamma=gamma,
        scaled=bool(checkpoint.get("model.scale_by_sigma", default=True)),
    )
    return Model(
        network=body,
        process=GammaHybrid(gamma, tail),
        hyperschedule=schedule,
        tokenizer=tokenizer,
        length=checkpoint.length,
        prediction=Prediction.LOG_SCORE,
        data={"notes": [*notes, PREDICTS, *GAMMA_NOTES, *padding_note(checkpoint, vocab)]},
    )


FAMILIES = {"epsilon_hybrid": _epsilon, "gamma_hybrid": _gamma}


def convert(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast) -> Model:
    """HDLM-ε and HDLM-γ, told apart by `model_type`, else by the graph.

    Raises:
        ValueError: if the configuration is not HDLM's, or the weights do not fit.
    """
    guess = "gamma_hybrid" if checkpoint.get("graph.type") == "QGamma" else "epsilon_hybrid"
    family = checkpoint.get("model_type", default=guess)
    if family not in FAMILIES or checkpoint.get("model.hidden_size") is None:
        raise ValueError(
            f"model_type {family!r} with these sections is no HDLM configuration: give the "
            "authors' with --config"
        )
    schedule, notes = _schedule(checkpoint)
    if "output_layer.adaLN_modulation.weight" in checkpoint.state:
        warnings.warn(
            "the output has adaLN weights, which the published HDLM code no longer reads; they "
            "are used here",
            stacklevel=2,
        )
        notes = [*notes, "An older network with adaLN in the output (unverified)."]
    return FAMILIES[family](checkpoint, tokenizer, schedule, notes)
