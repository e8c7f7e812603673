"""The generation loop, written once: every sampler, every hyperschedule, prompts and infilling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .call import generation_call
from .hyperschedule import Hyperschedule
from .network.head import logits_of
from .network.protocol import Denoiser
from .noise import Noise
from .process import Process
from .samplers.base import Sampler
from .samplers.filters import Filter, identity


@dataclass(frozen=True)
class Denoised:
    """Finished sequences ids [B, L], and the network calls spent on them."""

    ids: Tensor
    nfe: int


@torch.no_grad()
def denoise(
    network: Denoiser,
    process: Process,
    schedule: Hyperschedule,
    sampler: Sampler,
    noise: Noise,
    given: Tensor,
    warp: Filter = identity,
    on_call: Callable[[int, int, Tensor], None] | None = None,
) -> Denoised:
    """Draw sequences from noise to data under any hyperschedule.

    Given tokens are at t = 0 from the start: they are context, bear no change and cost no call of their own.

    Args:
        network: the denoiser.
        process: the noising process it was trained with.
        schedule: the hyperschedule; call k takes position i from τ_k(i) to τ_{k+1}(i).
        sampler: how a token takes that step.
        noise: names the draws of each row.
        given: [B, L] token ids, N where a token is to be drawn.
        warp: filter on the logits of the distribution that is drawn.
        on_call: called as (k + 1, K, tokens so far) after every call.

    Raises:
        ValueError: if the sampler is not defined for the process, or the schedule not for the network's layout.
    """
    sampler.check(process)
    N, L = network.num_tokens, given.shape[-1]
    free = given == N
    z = torch.where(free, process.prior(given.shape, N, noise.at(-1)), given)
    calls, nfe = schedule.calls(L), 0
    t = free.double()
    for k in range(calls):
        s = torch.minimum(t, schedule.level(k + 1, L).to(t) / schedule.T)
        rows = sampler.rows(process, z, t, s, N, noise.at(k))
        if rows.any():
            call, active = generation_call(network, schedule, k, z, t)
            logits = logits_of(network, call.hidden(network)[rows[:, active]])
            nfe += 1
        else:
            logits = torch.empty(0, N, device=z.device)
        z, t = sampler.step(process, logits, rows, z, t, s, noise.at(k), warp)
        if on_call is not None:
            on_call(k + 1, calls, z)
    return Denoised(z, nfe)
