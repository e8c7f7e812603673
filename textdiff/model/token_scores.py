"""log p of every token of a text, where that is exact."""

from __future__ import annotations

import torch

from ..hyperschedule import Hyperschedule
from ..noise import Noise
from ..objective import Batch
from ..objective.orders import Orders
from .requests import Prompt, literal
from .scoring import Law, bound_of
from .trained import Trained


@torch.no_grad()
def token_scores(
    model: Trained, text: Prompt, hyperschedule: Hyperschedule | None = None
) -> tuple[list[int], list[float]]:
    """The tokens of a text, and log p(x^i | x^(<i)) of each in nats.

    Exact for autoregressive models; for models that only mask, which do not see t, in groups that
    follow one another, it is the law of drawing from left to right.

    Args:
        model: whose p.
        text: text or ids.
        hyperschedule: default: that of training.

    Raises:
        ValueError: if there is no text, or only a bound on p is known.
    """
    ids = literal(model, text)
    if not ids:
        raise ValueError("there is no text to score")
    schedule = hyperschedule or model.hyperschedule
    law = Law.of(model, schedule, "left to right", len(ids))
    row = torch.tensor([ids], device=model.device)
    example = torch.zeros(1, dtype=torch.int64, device=model.device)
    orders = Orders(Batch(row, example, example).apart(model.apart), schedule)
    if law.orders:
        nats = orders.nats(model.network, orders.left_to_right())[0]
    elif law.sequential:
        bound, _ = bound_of(model, law, len(ids))
        nats = bound.nats(model.network, orders.batch, Noise(0, example)).values
    else:
        raise ValueError(
            f"log p of single tokens is not known for {model.process} under {schedule}, only a "
            "bound on that of all: use score, or hyperschedule QuenchedAR()"
        )
    return ids, (-nats[0]).tolist()
