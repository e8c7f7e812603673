"""What one network call is fed, in training and in generation, under any hyperschedule and both layouts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from .attention import Roles, Visibility
from .hyperschedule import Hyperschedule, Tiling
from .network.protocol import Denoiser


@dataclass(frozen=True)
class Call:
    """The rows of one network call.

    Args:
        ids: [B, R] in 0..N.
        positions: [R].
        t: [B, R] in [0, 1].
        visibility: who attends to whom.
        first: rows before the first one that predicts a token; rows first.. predict the tokens of the call, in order.
    """

    ids: Tensor
    positions: Tensor
    t: Tensor
    visibility: Visibility
    first: int = 0

    def hidden(self, network: Denoiser) -> Tensor:
        """Hidden rows of the predicted tokens."""
        return network.body(self.ids, self.positions, self.t, self.visibility)[:, self.first :]


def check_layout(network: Denoiser, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError unless the network's layout can follow this hyperschedule."""
    causal = schedule.T == 1 and torch.equal(schedule.start(L), torch.arange(L))
    if network.shifted and not causal:
        raise ValueError(
            f"a network in the shifted layout follows QuenchedAR only so far, not {schedule}: use layout: aligned for it"
        )


def training_call(
    network: Denoiser,
    schedule: Hyperschedule,
    x: Tensor,
    z: Tensor,
    t: Tensor,
    tiling: Tiling,
    document: Tensor | None = None,
    valid: Tensor | None = None,
) -> Call:
    """The call that sees every window of a tiling at once.

    A noisy stream of all windows stands beside the clean stream; for a single window (flat) there is no clean stream, so it costs
    one length. In the shifted layout quenched AR is a causal LM: its context is its own input.

    Args:
        network: the denoiser.
        schedule: its hyperschedule.
        x, z: clean and noisy tokens [B, L].
        t: times [B, L].
        tiling: windows of `schedule`, [B or 1, L].
        document: [B, L] attention stays inside a document, or None.
        valid: [B, L] False at ignored padding, or None.
    """
    L = x.shape[-1]
    check_layout(network, schedule, L)
    positions = torch.arange(L, device=x.device)
    if network.shifted:
        ids = pad(x[:, :-1], (1, 0), value=network.bos)
        if document is not None:  # a document's first token is predicted from a BOS of its own
            first = torch.ones_like(document, dtype=torch.bool)
            first[:, 1:] = document[:, 1:] != document[:, :-1]
            ids = ids.masked_fill(first, network.bos)
        # Row j is counted to the document of the token it predicts. Ignored padding stands at the end: no row before it sees it.
        return Call(ids, positions, torch.zeros_like(t), Visibility(causal=True).within(document))
    start = schedule.start(L).to(x.device)
    if int(start.max()) == 0:
        return Call(z, positions, t, Visibility().within(document, valid))
    twice = torch.cat([positions, positions])
    context = torch.full_like(tiling.window, -1)
    roles = Roles(twice, start[twice], torch.cat([context, tiling.window], -1), torch.cat([tiling.call, tiling.call], -1))
    visibility = Visibility.of(roles, schedule.T)
    both = [None if mark is None else torch.cat([mark, mark], -1) for mark in (document, valid)]
    times = torch.cat([torch.zeros_like(t), t], -1)
    return Call(torch.cat([x, z], -1), twice, times, visibility.within(*both), first=L)


def generation_call(network: Denoiser, schedule: Hyperschedule, k: int, z: Tensor, t: Tensor) -> tuple[Call, Tensor]:
    """Call k of a sequence z, t [B, L]: the settled positions as context and the window; worthless ones are not fed.

    Returns:
        The call, and the positions [R] that its predicting rows stand for.
    """
    L = z.shape[-1]
    check_layout(network, schedule, L)
    settled, window = schedule.settled(k, L), schedule.window(k, L)
    if network.shifted:  # row k-1 is the boundary and predicts token k, which is at full noise and not fed
        ids = pad(z[:, :k], (1, 0), value=network.bos)
        positions = torch.arange(k + 1, device=z.device)
        call = Call(ids, positions, torch.zeros_like(t[:, : k + 1]), Visibility(causal=True), first=k)
        return call, positions[k:]
    context, active = settled.nonzero().squeeze(-1).to(z.device), window.nonzero().squeeze(-1).to(z.device)
    fed = torch.cat([context, active])
    if not len(context):
        return Call(z[:, fed], fed, t[:, fed], Visibility()), active
    role = (torch.arange(len(fed), device=z.device) >= len(context)).long() - 1  # -1 context, 0 the window
    start = schedule.start(L).to(z.device)[fed]
    roles = Roles(fed, start, role[None], torch.full((1, len(fed)), float(k), dtype=torch.float64, device=z.device))
    return Call(z[:, fed], fed, t[:, fed], Visibility.of(roles, schedule.T), first=len(context)), active
