"""Toy networks, and the generative chain and its bounds enumerated state by state, from the
formulas of maths.md 1-4 alone.

States are [S, d] tables of ids 0..N (N = MASK). Nothing here calls a process, an objective, a call
or a sampler of textdiff (`law_of` excepted, which is the instrument that reads a sampler's law):
kernels and marginals come from `enumeration`.
"""

import math
from functools import cache
from itertools import pairwise, permutations, product

import torch
from enumeration import Leaky, bregman, generator, kernel, marginals
from torch import Tensor

from textdiff.hyperschedule import (
    Block,
    Flat,
    Hyperschedule,
    QuenchedAR,
    Slide,
    StartSteps,
    TightBlock,
)
from textdiff.network import Transformer, TransformerDenoiser
from textdiff.noise import Stream
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import Filter, Sampler, Step
from textdiff.samplers.filters import identity

PROCESSES = [
    Absorbing(),
    Uniform(),
    GammaHybrid(0.3),
    GammaHybrid(0.5, tail=0.1),
    GammaHybridMaskClock(0.3),
    EpsilonHybrid(0.3),
    SmoothEpsilonHybrid(0.3, power=3.0),
    GIDD(),
    Leaky(),
]
SCHEDULES = [
    QuenchedAR(),
    Flat(2),
    Block(2, 2),
    Slide(2, 1),
    TightBlock(2, 2),
    StartSteps(3, (2, 0, 3)),
]


def name(value: object) -> str:
    """The id of a parametrised test."""
    return repr(value).replace(" ", "")


class SetNetwork:
    """A denoiser that is a generic function of the *set* of (position, id, t) its row sees, and of
    the row's position.

    hidden_i = sin(mix · Σ_{j seen} code(position_j, id_j, t_j) + own(position_i)): as good as a
    random table, at any length.
    """

    shifted = False
    bos = 0
    cacheable = False
    self_noise = None

    def __init__(
        self,
        N: int = 3,
        sees_time: bool = False,
        seed: int = 0,
        scale: float = 1.0,
        length: int = 8,
        D: int = 5,
    ):
        draw = torch.Generator().manual_seed(seed)
        self.num_tokens, self.sees_time = N, sees_time
        self.code, self.slope = (
            torch.randn(length, N + 1, D, dtype=torch.float64, generator=draw) for _ in range(2)
        )
        self.own = torch.randn(length, D, dtype=torch.float64, generator=draw)
        self.mix = torch.randn(D, D, dtype=torch.float64, generator=draw)
        self.weight = scale * torch.randn(N, D, dtype=torch.float64, generator=draw)

    def embed(self, ids: Tensor, positions: Tensor, t: Tensor) -> Tensor:
        """The codes [B, R, D] that a row sums over what it sees."""
        code = self.code[positions, ids]
        return code + t.unsqueeze(-1) * self.slope[positions, ids] if self.sees_time else code

    def body(self, ids, positions, t, visibility):
        R = ids.shape[-1]
        hidden = torch.sin(
            visibility.dense(R).double() @ self.embed(ids, positions, t) @ self.mix
            + self.own[positions]
        )
        return hidden[:, visibility.context if visibility.context < R else 0 :]

    def head_parameters(self):
        return self.weight, None

    def cavity(self, z: Tensor, t: list[float], fed: list[int], i: int) -> Tensor:
        """x̂^i [S, N] for the states z [S, d] when the positions `fed` are seen at the times t[j],
        without any attention.
        """
        times = torch.tensor([t[j] for j in fed], dtype=torch.float64).expand(len(z), len(fed))
        seen = self.embed(z[:, fed], torch.tensor(fed), times).sum(1)
        return (torch.sin(seen @ self.mix + self.own[i]) @ self.weight.T).softmax(-1)


def toy(process: Process, N: int = 3, seed: int = 0, scale: float = 1.0) -> SetNetwork:
    """A random network that sees t where the process wants it."""
    return SetNetwork(N, process.needs_time, seed, scale)


def random_transformer(N: int, sees_time: bool, **shape: object) -> TransformerDenoiser:
    """Our transformer in float64, in eval, all parameters random and of a size that opens every
    gate and saturates nothing.
    """
    net = (
        Transformer(**{"layers": 2, "width": 16, "heads": 2} | shape)
        .build(N, sees_time, bos=0)
        .double()
        .eval()
    )
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = (
                parameter.shape[1] ** -0.5
                if parameter.dim() == 2 and len(parameter) != N + 1
                else 0.7
            )
            parameter.copy_(
                scale * torch.randn(parameter.shape, dtype=torch.float64, generator=draw)
            )
    return net


# --------------------------------------------------------------------------------------------------
# the chain


def states(N: int, d: int) -> Tensor:
    """Every sequence of ids 0..N, [(N+1)^d, d]."""
    return torch.tensor(list(product(range(N + 1), repeat=d)))


def sequences(N: int, d: int) -> Tensor:
    """Every sequence of ordinary tokens, [N^d, d]."""
    return torch.tensor(list(product(range(N), repeat=d)))


def levels(schedule: Hyperschedule, k: int, d: int) -> list[int]:
    """τ_k = clip(T + s - k, 0, T)."""
    return [min(max(schedule.T + s - k, 0), schedule.T) for s in schedule.start(d).tolist()]


def calls(schedule: Hyperschedule, d: int) -> int:
    """K = T + max s."""
    return schedule.T + max(schedule.start(d).tolist())


@cache
def _kernel(process: Process, s: float, t: float, N: int) -> Tensor:
    return kernel(process, s, t, N)


@cache
def _marginals(process: Process, t: float, N: int) -> Tensor:
    return marginals(process, t, N)


def plug_in(process: Process, xhat: Tensor, z: Tensor, s: float, t: float) -> Tensor:
    """Bayes: q(z_s | z_t, x̂) = K[z, .] q_s(. | x̂)/q_t(z | x̂), [S, N+1]; xhat [S, N], z [S];
    identity where z is impossible.
    """
    N = xhat.shape[-1]
    weights = _kernel(process, s, t, N)[z] * (xhat @ _marginals(process, s, N).T)
    total = (xhat @ _marginals(process, t, N).T).gather(-1, z[:, None])
    stuck = torch.nn.functional.one_hot(z, N + 1).double()
    return torch.where(total > 0, weights / total.where(total > 0, 1.0), stuck)


def step_laws(net: SetNetwork, process: Process, schedule: Hyperschedule, k: int, d: int) -> Tensor:
    """p^i(z_{k+1}^i | z_k) of call k at every state, [S, d, N+1]: settled positions and the window
    are seen, nothing else.
    """
    N, z = net.num_tokens, states(net.num_tokens, d)
    before, after = levels(schedule, k, d), levels(schedule, k + 1, d)
    fed = [j for j in range(d) if before[j] == 0 or after[j] < schedule.T]
    t = [level / schedule.T for level in before]
    laws = torch.nn.functional.one_hot(z, N + 1).double()
    for i in range(d):
        if after[i] < before[i]:
            laws[:, i] = plug_in(
                process, net.cavity(z, t, fed, i), z[:, i], after[i] / schedule.T, t[i]
            )
    return laws


def joint(laws: Tensor) -> Tensor:
    """Independent laws of the positions [..., d, M] -> the law of all states [..., M^d]."""
    total = laws[..., 0, :]
    for i in range(1, laws.shape[-2]):
        total = (total.unsqueeze(-1) * laws[..., i, :].unsqueeze(-2)).flatten(-2)
    return total


def ordinary(p: Tensor, N: int, d: int) -> Tensor:
    """A law of all states without the states that hold a MASK: [S] -> [N^d]."""
    return p[(states(N, d) < N).all(-1)]


def prior(process: Process, N: int) -> Tensor:
    """π = m_1 MASK + (1 - m_1) u."""
    m = float(_marginals(process, 1.0, N)[N, 0])
    return torch.tensor([(1 - m) / N] * N + [m], dtype=torch.float64)


def model_law(net: SetNetwork, process: Process, schedule: Hyperschedule, d: int) -> Tensor:
    """The law of the last state of the generative chain, [S]; MASK states included."""
    p = joint(prior(process, net.num_tokens).expand(d, -1))
    for k in range(calls(schedule, d)):
        p = p @ joint(step_laws(net, process, schedule, k, d))
    return p


def noisy_law(process: Process, x: Tensor, t: list[float], N: int) -> Tensor:
    """q(z | x) of every state at the times t, [X, S] for sequences x [X, d]."""
    return joint(
        torch.stack([_marginals(process, time, N).T[x[:, i]] for i, time in enumerate(t)], 1)
    )


def step_bound(net: SetNetwork, process: Process, schedule: Hyperschedule, d: int) -> Tensor:
    """The T-step bound (3.1) of every sequence, [N^d]: prior KL and the expected KL of every move
    of every call.
    """
    N = net.num_tokens
    x, z = sequences(N, d), states(N, d)
    q, pi = _marginals(process, 1.0, N)[:, 0], prior(process, N)
    total = torch.full(
        (len(x),), d * float((torch.xlogy(q, q) - torch.xlogy(q, pi)).sum()), dtype=torch.float64
    )
    for k in range(calls(schedule, d)):
        before, after = levels(schedule, k, d), levels(schedule, k + 1, d)
        laws = step_laws(net, process, schedule, k, d)
        weight = noisy_law(process, x, [level / schedule.T for level in before], N)
        for i in range(d):
            if after[i] == before[i]:
                continue
            s, t = after[i] / schedule.T, before[i] / schedule.T
            true = torch.stack(
                [
                    plug_in(process, torch.eye(N).double()[[v] * len(z)], z[:, i], s, t)
                    for v in range(N)
                ]
            )
            kl = torch.xlogy(true, true).sum(-1) - torch.xlogy(true, laws[None, :, i]).sum(-1)
            here = kl[x[:, i]]
            total = total + torch.where(weight > 0, weight * here, 0.0).sum(-1)
    return total


# --------------------------------------------------------------------------------------------------
# continuous time, flat


def integrand(net: SetNetwork, process: Process, x: Tensor, t: float) -> Tensor:
    """E_{z ~ q_t(. | x)} Σ_i Σ_{y≠z} R(y -> z) B(q(y|x)/q(z|x), q(y|x̂)/q(z|x̂)) for one sequence x
    [d], (2.2).
    """
    N, d = net.num_tokens, len(x)
    z, q = states(N, d), marginals(process, t, N)
    rates = generator(process, torch.tensor(t, dtype=torch.float64), N)
    weight, total = noisy_law(process, x[None], [t] * d, N)[0], 0.0
    for i in range(d):
        guess = net.cavity(z, [t] * d, list(range(d)), i) @ q.T
        own = z[:, i]
        a, b = q[:, x[i]] / q[own, x[i]][:, None], guess / guess.gather(1, own[:, None])
        rate = rates[own].scatter(1, own[:, None], 0.0)
        used = (weight > 0)[:, None] & (rate > 0)
        total = total + torch.where(used, weight[:, None] * rate * bregman(a, b), 0.0).sum()
    return total


def atom_term(net: SetNetwork, process: EpsilonHybrid, x: Tensor) -> Tensor:
    """E_{z_0 ~ (1-ε)x + εu} Σ_i -log p(x^i | z_0), p(x | z) = x̂_x d(z|x)/d(z|x̂), (1.5); x [d]."""
    N, d, e = net.num_tokens, len(x), process.epsilon
    z = sequences(N, d)
    law = (1 - e) * torch.eye(N).double() + e / N
    weight, total = joint(torch.stack([law[v] for v in x.tolist()])), 0.0
    for i in range(d):
        xhat = net.cavity(z, [0.0] * d, list(range(d)), i)
        posterior = xhat * law[:, z[:, i]].T
        total = total - (weight * (posterior[:, x[i]] / posterior.sum(-1)).log()).sum()
    return total


def subset_bound(net: SetNetwork, epsilon: float, x: Tensor, kind: str) -> Tensor:
    """∫ dt/t E Σ_masked (.) as a sum over the masked subsets S, of weight ∫ t^{l-1}(1-t)^{d-l} dt =
    (l-1)!(d-l)!/d!; x [d].

    `kind` is "ce" (4.4) or "kl" (the diffusion part of (4.5)); the visible tokens are those of the
    ε-noise.
    """
    N, d = net.num_tokens, len(x)
    law = (1 - epsilon) * torch.eye(N).double() + epsilon / N
    total = torch.zeros((), dtype=torch.float64)
    for size in range(1, d + 1):
        measure = math.factorial(size - 1) * math.factorial(d - size) / math.factorial(d)
        for masked in (S for S in product([False, True], repeat=d) if sum(S) == size):
            shown = [[N] if hidden else range(N) for hidden in masked]
            z = torch.tensor(list(product(*shown)))
            weight = torch.ones(len(z), dtype=torch.float64)
            for j in range(d):
                weight = weight if masked[j] else weight * law[x[j], z[:, j]]
            for i in (i for i in range(d) if masked[i]):
                xhat = net.cavity(z, [0.0] * d, list(range(d)), i)
                guess = (1 - epsilon) * xhat + epsilon / N
                kl = (torch.xlogy(law[x[i]], law[x[i]]) - law[x[i]] * guess.log()).sum(-1)
                value = kl if kind == "kl" else -xhat[:, x[i]].log()
                total = total + measure * (weight * value).sum()
    return total


def any_order_law(net: SetNetwork, epsilon: float, d: int) -> tuple[Tensor, Tensor]:
    """(p_B2, p_B3) of maths 4.3 for every sequence, by enumerating unmasking orders and displays;
    time-free networks.

    B2: token i is emitted x^i ~ x̂^i and displayed as (1-ε) x^i + ε u. B3: z^i ~ (1-ε) x̂^i + ε u
    is displayed, and at the end every x^i is drawn from the posterior p(x^i | z_0).
    """
    N = net.num_tokens
    x = sequences(N, d)
    law = (1 - epsilon) * torch.eye(N).double() + epsilon / N  # law[x, z]
    emitted, displayed = (
        torch.zeros(len(x), dtype=torch.float64),
        torch.zeros(len(x), dtype=torch.float64),
    )
    for order in permutations(range(d)):
        z = torch.full((len(x), d), N)  # z runs over all final displays
        p_z, p_xz = (
            torch.ones(len(x), dtype=torch.float64),
            torch.ones(len(x), len(x), dtype=torch.float64),
        )
        for i in order:
            xhat = net.cavity(z, [0.0] * d, list(range(d)), i)
            z = z.clone()
            z[:, i] = x[:, i]
            p_z = p_z * (xhat @ law).gather(1, z[:, i : i + 1])[:, 0]
            p_xz = p_xz * xhat[:, x[:, i]] * law[x[:, i]][:, z[:, i]].T  # [z, x]
        emitted += p_xz.sum(0) / math.factorial(d)
        displayed += p_z / math.factorial(d)
    recovered = torch.ones(len(x), len(x), dtype=torch.float64)  # [z, x]
    for i in range(d):
        posterior = net.cavity(x, [0.0] * d, list(range(d)), i) * law[:, x[:, i]].T
        recovered = recovered * (posterior / posterior.sum(-1, keepdim=True))[:, x[:, i]]
    return emitted, displayed @ recovered


# --------------------------------------------------------------------------------------------------
# randomness, enumerated


class FixedNoise:
    """A `Noise` whose uniforms are given: `tables[stream]` [B, L], the same at every step; 1/2 in
    the streams without a table.
    """

    seed = step = 0

    def __init__(self, tables: dict[Stream, Tensor]):
        self.tables = tables

    def at(self, step: int) -> "FixedNoise":
        return self

    def positions(self, like: Tensor, stream: Stream) -> Tensor:
        table = self.tables.get(stream, torch.full(like.shape, 0.5, dtype=torch.float64))
        assert table.shape == like.shape
        return table


STREAMS = [
    Stream.MASK,
    Stream.TOKEN,
    Stream.CORRUPT,
    Stream.UNIFORM_TOKEN,
    Stream.ROUTE,
    Stream.CORRECT,
]


def apart(values: list[float]) -> list[float]:
    """Sorted values without those that repeat another within rounding."""
    return values[:1] + [b for a, b in pairwise(values) if b - a > 1e-14]


def law_of(
    sampler: Sampler,
    process: Process,
    logits: Tensor,
    z: Tensor,
    s: Tensor,
    t: Tensor,
    filter: Filter = identity,
    grid: int = 33,
) -> Tensor:
    """The law of one step of a sampler as exact probabilities [P, N+1], without knowing how it uses
    its uniforms.

    The result is a step function of the six uniforms of a position. Its jumps are found on a grid
    (the other uniforms at all corners of the cube) and bisected to 1e-16, which cuts the cube into
    cells; a cell's volume is its probability. Each cell is
    evaluated near two opposite corners, which must agree: no jump was missed. logits [P, N]; z, s,
    t [P].
    """
    P, N, n = len(z), logits.shape[-1], len(STREAMS)

    def outcome(problem: Tensor, u: Tensor) -> Tensor:
        at = problem.unsqueeze(-1)
        noise = FixedNoise({stream: u[:, [i]] for i, stream in enumerate(STREAMS)})
        step = Step(process, z[at], t[at], s=s[at], N=N, noise=noise)
        rows = sampler.rows(step)
        moved, times = sampler.move(step, rows, logits[problem[rows[:, 0]]], filter)
        assert torch.equal(times, s[at])
        return moved[:, 0]

    tiny = 1e-15
    points = (torch.arange(grid, dtype=torch.float64) / (grid - 1)).clamp(tiny, 1 - tiny)
    corners = torch.tensor(
        list(product([1e-9, 1 - 1e-9], repeat=n - 1)), dtype=torch.float64
    )  # of the other uniforms
    problems, base, low, high, which = [], [], [], [], []
    for axis in range(n):
        others = torch.cat([corners[:, :axis], torch.zeros(len(corners), 1), corners[:, axis:]], 1)
        u = others.repeat_interleave(grid, 0).repeat(P, 1)
        u[:, axis] = points.repeat(P * len(others))
        seen = outcome(torch.arange(P).repeat_interleave(len(others) * grid), u).view(
            P, len(others), grid
        )
        p, corner, cell = (seen[..., :-1] != seen[..., 1:]).nonzero(as_tuple=True)
        problems.append(p)
        base.append(others[corner])
        low.append(points[cell])
        high.append(points[cell + 1])
        which.append(torch.full_like(p, axis))
    p, u, lo, hi, axis = map(torch.cat, (problems, base, low, high, which))
    found = []
    # an interval may hold several jumps: the first is found, then what is left to its right
    while len(p):
        end = hi
        at_low, at_end = (outcome(p, u.scatter(1, axis[:, None], x[:, None])) for x in (lo, end))
        for _ in range(52):
            middle = (lo + hi) / 2
            same = outcome(p, u.scatter(1, axis[:, None], middle[:, None])) == at_low
            lo, hi = torch.where(same, middle, lo), torch.where(same, hi, middle)
        found.append((p, axis, hi))
        at_high = outcome(p, u.scatter(1, axis[:, None], hi[:, None]))
        more = (at_high != at_end) & (end - hi > 1e-14)
        p, u, axis, lo, hi = p[more], u[more], axis[more], hi[more], end[more]
    p, axis, hi = map(torch.cat, zip(*found, strict=True)) if found else (p, axis, hi)
    edges = []  # per axis [P, C + 1], padded with cells of no width
    for a in range(n):
        cuts = [
            apart([0.0, *hi[(p == problem) & (axis == a)].sort().values.tolist(), 1.0])
            for problem in range(P)
        ]
        widest = max(map(len, cuts))
        edges.append(
            torch.tensor([row + [1.0] * (widest - len(row)) for row in cuts], dtype=torch.float64)
        )
    cells = torch.tensor(list(product(*(range(e.shape[1] - 1) for e in edges))))
    left = torch.stack([e[:, cells[:, a]] for a, e in enumerate(edges)], -1).flatten(0, 1)
    right = torch.stack([e[:, cells[:, a] + 1] for a, e in enumerate(edges)], -1).flatten(0, 1)
    width = right - left
    volume, index = width.prod(-1), torch.arange(P).repeat_interleave(len(cells))
    inside = (
        (left + 1e-6 * width).clamp(tiny, 1 - tiny),
        (right - 1e-6 * width).clamp(tiny, 1 - tiny),
    )
    first, second = (outcome(index, u) for u in inside)
    assert (first == second)[volume > 1e-13].all(), "a jump was missed: refine the grid"
    return torch.zeros(P, N + 1, dtype=torch.float64).index_put_(
        (index, first), volume, accumulate=True
    )
