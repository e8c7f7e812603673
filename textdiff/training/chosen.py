"""The optimiser and learning rate that a command line names instead of ours."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .configs import imported
from .optimiser import Optimiser


@dataclass(frozen=True)
class Chosen:
    """What `--optimizer` and `--lr_scheduler` say, as {class_path, init_args}; None: ours.

    Args:
        optimizer: any of torch's, over all parameters alike.
        lr_scheduler: any of torch's, or of `textdiff.training.schedules`, taken at every step; its
            `steps` are those of the training unless they are stated.
    """

    optimizer: dict[str, Any] | None = None
    lr_scheduler: dict[str, Any] | None = None

    def configured(self, ours: Optimiser, module: Any, steps: int) -> Any:
        """What Lightning's `configure_optimizers` returns, for a training of so many steps.

        Args:
            ours: what is taken where nothing was chosen.
            module: whose parameters; those that it calls `decayed` are, with ours.
            steps: of the training.
        """
        if self.optimizer is None:
            optimizer: Optimizer = ours.adamw(module.named_parameters(), module.decayed)
        else:
            made = imported(self.optimizer["class_path"])
            rank_zero_warn(
                f"{made.__name__} takes the place of AdamW: model.lr, model.betas and "
                "model.weight_decay change nothing, set its own (--optimizer.lr ...)"
            )
            optimizer = made(module.parameters(), **self.optimizer.get("init_args", {}))
        named = self.lr_scheduler
        schedule = (
            ours.schedule(optimizer, steps) if named is None else _made(named, optimizer, steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def resume(self, ours: Optimiser, checkpoint: dict[str, Any], steps: int) -> None:
        """Put the numbers of today into a checkpoint, where they are ours."""
        if self.optimizer is None and self.lr_scheduler is None:
            ours.resume(checkpoint, steps)


def _made(named: dict[str, Any], optimizer: Optimizer, steps: int) -> Any:
    """The schedule that is named."""
    made = imported(named["class_path"])
    if issubclass(made, ReduceLROnPlateau):
        raise ValueError(
            "--lr_scheduler ReduceLROnPlateau waits for a number that a step does not have: take "
            "one that is a function of the step"
        )
    arguments = dict(named.get("init_args", {}))
    if "steps" in inspect.signature(made).parameters and arguments.get("steps") is None:
        arguments["steps"] = steps
    return made(optimizer, **arguments)
