"""The optimiser and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from .schedules import cosine

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from ..data import TextData


@dataclass(frozen=True)
class Optimiser:
    """AdamW (decay on matrices only) with a linear warm-up and a cosine down to final_lr · lr.

    Args:
        lr: peak learning rate, >= 0.
        betas: AdamW's moments, in [0, 1).
        weight_decay: on matrices only, >= 0.
        warmup: steps of linear warm-up, >= 0.
        final_lr: share of `lr` at the end of the cosine, in [0, 1].

    Raises:
        ValueError: if one of them is out of range.
    """

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    warmup: int
    final_lr: float

    def __post_init__(self) -> None:
        betas = tuple(self.betas)
        object.__setattr__(self, "betas", betas)
        moments = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
        for name, right, rule in (
            ("lr", 0 <= self.lr < math.inf, ">= 0"),
            ("betas", moments, "two numbers in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, ">= 0"),
            ("warmup", self.warmup >= 0, ">= 0"),
            ("final_lr", 0 <= self.final_lr <= 1, "a share of lr in [0, 1]"),
        ):
            if not right:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}")

    def share(self, step: int, steps: int) -> float:
        """The learning rate at a step of so many, as a share of `lr`.

        >>> optimiser = Optimiser(1e-3, (0.9, 0.99), 0.01, warmup=10, final_lr=0.1)
        >>> [round(optimiser.share(step, steps=110), 3) for step in (0, 9, 60, 110)]
        [0.1, 1.0, 0.55, 0.1]
        """
        return cosine(step, steps, self.warmup, self.final_lr)

    def adamw(
        self, parameters: Iterable[tuple[str, nn.Parameter]], decayed: Collection[str]
    ) -> torch.optim.AdamW:
        """AdamW over named parameters, of which those called `decayed` are decayed."""
        named = list(parameters)
        matrices = [p for name, p in named if name in decayed]
        others = [p for name, p in named if name not in decayed]
        decay, none = self._decays
        groups = [
            {"params": matrices, "weight_decay": decay},
            {"params": others, "weight_decay": none},
        ]
        made = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)
        # Else Lightning refuses to clip gradients under mixed precision.
        made._step_supports_amp_scaling = False
        return made

    @property
    def _decays(self) -> tuple[float, float]:
        """Of matrices and of all else, in the order of the optimiser's groups."""
        return self.weight_decay, 0.0

    def resume(self, checkpoint: dict[str, Any], steps: int) -> None:
        """Put these numbers, not those that a training began with, into a checkpoint that a
        training of so many steps goes on from.
        """
        schedules = checkpoint.get("lr_schedulers", [])
        step = schedules[0]["last_epoch"] if schedules else 0
        lr = self.lr * self.share(step, steps)
        for state in checkpoint.get("optimizer_states", []):
            for group, decay in zip(state["param_groups"], self._decays, strict=True):
                group |= {"lr": lr, "initial_lr": self.lr, "betas": self.betas}
                group["weight_decay"] = decay
        for schedule in schedules:
            schedule["base_lrs"] = [self.lr] * len(schedule["base_lrs"])
            schedule["_last_lr"] = [lr] * len(schedule["base_lrs"])

    def schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
        """The learning rate of a training of so many steps.

        Raises:
            ValueError: if the warm-up takes them all.
        """
        if 0 < steps <= self.warmup:
            raise ValueError(
                f"warmup {self.warmup} leaves none of the {steps} steps: "
                "lower model.warmup or raise trainer.max_steps"
            )
        return LambdaLR(optimizer, lambda step: self.share(step, steps))


def steps_of(trainer: Trainer, data: TextData) -> int:
    """Steps of the whole training on its data; Lightning's own estimate would start the data loader
    before a resume has set its place.

    Raises:
        ValueError: if it has no end.
    """
    steps = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    if not data.corpus.streaming and epochs >= 0:
        limit = trainer.limit_train_batches
        batches = len(data.packed("train")) // data.batch_size
        batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
        an_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        steps = min(steps, epochs * an_epoch)
    if steps == math.inf:
        raise ValueError("the cosine of the learning rate needs an end: set trainer.max_steps")
    return int(steps)
