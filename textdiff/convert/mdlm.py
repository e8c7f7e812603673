"""MDLM (Sahoo et al.): p(x | z) at masked positions, carry-over elsewhere ("subs"), as a rule blind
to the noise level.

Layout and arithmetic from the public code kuleshov-group/mdlm at 06dd29f: models/dit.py (names,
adaLN in blocks and output), diffusion.py (mask index: the tokenizer's own mask token, else one more
id; subs and sedd parameterisations; time_conditioning False feeds σ = 0; Lightning checkpoint with
ema.shadow_params over backbone.parameters()), models/ema.py, noise_schedule.py,
configs/model/{tiny,small,medium}.yaml; config.json and file sizes of kuleshov-group/mdlm-owt on the
Hub at 25ce5c5 (its prefix `backbone.` from third parties' loaders). Unverified here: the weights,
which cannot be downloaded.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

from ..hyperschedule import Flat, Hyperschedule
from ..model.model import Model
from ..process import Absorbing, GammaHybrid, Process
from .checkpoint import Checkpoint
from .layout import network, padding_note, vocabulary
from .sedd import STEPS, absorbing_scores, seen_times

KNOWN = ("subs", "d3pm", "sedd")


def convert(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast) -> Model:
    """MDLM of any size and parameterisation but "ar".

    Raises:
        ValueError: if the backbone is not a DDiT, or the weights do not fit.
    """
    kind = checkpoint.get("parameterization", "algo.parameterization", default="subs")
    backbone = checkpoint.get("backbone", "algo.backbone", default="dit")
    if kind not in KNOWN or backbone not in ("dit", "hf_dit"):
        raise ValueError(
            f"only the DDiT with {', '.join(KNOWN)} can be converted, this is backbone "
            f"{backbone!r} with {kind!r}"
        )
    if kind == "sedd":
        return absorbing_scores(checkpoint, tokenizer, mask_of(tokenizer), scaled=True)
    notes = ["Trained on the continuous NELBO of absorbing noise, which is the bound that applies."]
    if kind == "d3pm":
        notes = [
            "Trained as D3PM: its share of MASK is left out, and the bound is the NELBO of "
            "absorbing noise with carry-over."
        ]
    return subs(checkpoint, tokenizer, Flat(STEPS), notes)


def mask_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """The row of MASK: the tokenizer's own mask token, else the first row after its tokens."""
    return len(tokenizer) if tokenizer.mask_token_id is None else tokenizer.mask_token_id


def subs(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    schedule: Hyperschedule,
    notes: list[str],
) -> Model:
    """A network of p(x | z) at MASK under absorbing noise; there the cavity is the posterior, and
    visible tokens are carried over.
    """
    vocab = vocabulary(checkpoint, tokenizer, mask_of(tokenizer))
    process: Process = Absorbing()
    options: dict[str, Any] = {"time": "none"}
    if checkpoint.get("time_conditioning", "algo.time_conditioning", default=False):
        low, high = seen_times(checkpoint, tail=1e-3, least=1e-3)
        process = GammaHybrid(gamma=0.0)
        options = {"time": "sequence", "low": low, "high": high}
        notes = [
            *notes,
            "GammaHybrid(gamma=0) is absorbing noise for a network that sees t. One level per "
            "sequence: flat schedules.",
        ]
    body = network(checkpoint, vocab, tokenizer.bos_token_id, **options)
    data = {"notes": [*notes, *padding_note(checkpoint, vocab)]}
    return Model(body, process, schedule, tokenizer, checkpoint.length, data=data)
