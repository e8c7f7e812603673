"""Callbacks that `fit` always has: one keeps the model folder, one tells a log how far it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from ..files import write_picture
from ..model.checkpoint import network_state
from ..model.folder import save
from ..viewer import schedules as pictures
from .curves import curves
from .module import TextDiffusion
from .sharding import whole

DRAWN = 256  # tokens of the hyperschedule picture at most
SHARES = 10  # lines of progress in a training,
SECONDS = 600.0  # or more, so that a long one never says nothing for longer


class ModelFolder(Callback):
    """Keep the run's folder (the trainer's default_root_dir) a loadable model: EMA weights, config,
    tokenizer, pictures.

    It must stand after the EMA callback, whose averaged weights it takes from the checkpoint.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the folder from the weights that the checkpoint holds."""
        if trainer.state.fn != "fit":
            return
        # All ranks take part where weights are sharded.
        weights = network_state(whole(checkpoint["state_dict"]))
        if trainer.is_global_zero:
            module = cast(TextDiffusion, pl_module)
            save(module.model(), trainer.default_root_dir, weights)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder from the final weights (the EMA callback has put its own in place) and
        draw the pictures.
        """
        state = trainer.strategy.lightning_module_state_dict()  # likewise
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        model = cast(TextDiffusion, pl_module).model()
        save(model, run, network_state(state))
        L = model.hyperschedule.shortened(model.length, DRAWN)
        write_picture(run / "hyperschedule.png", pictures.matrix(model.hyperschedule, L))
        write_picture(run / "loss.png", curves(run))


class ProgressLines(Callback):
    """Lines of progress on stderr, for a log, where no terminal shows a bar.

    One at every tenth of the training, and at least every ten minutes:

        step   60/600   10 %  loss 3.214  val/nelbo 3.301  2:24 left

    `loss` is the mean since the line before, `val/nelbo` the last validation's.
    """

    def __init__(self) -> None:
        self.first = 0  # step at which this session began
        self.last = 0  # step of the last line
        self.begin = 0.0
        self.told = 0.0  # when the last line was written
        self.loss: Any = 0.0  # sum since the line before, of so many batches
        self.batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.first = trainer.global_step
        self.last = trainer.global_step
        self.begin = time.perf_counter()
        self.told = self.begin
        self.loss = 0.0
        self.batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Write a line if it is time for one."""
        self.loss += trainer.callback_metrics["loss"]
        self.batches += 1
        step = trainer.global_step
        steps = int(trainer.estimated_stepping_batches)
        now = time.perf_counter()
        tenth = step * SHARES // steps > self.last * SHARES // steps
        if step == self.last or not (tenth or now - self.told > SECONDS):
            return
        if trainer.is_global_zero:
            print(self._line(trainer, steps, now), file=sys.stderr, flush=True)
        self.last = step
        self.told = now
        self.loss = 0.0
        self.batches = 0

    def _line(self, trainer: Trainer, steps: int, now: float) -> str:
        step = trainer.global_step
        left = (now - self.begin) / (step - self.first) * (steps - step)
        parts = [
            f"step {step:{len(str(steps))}}/{steps}  {100 * step // steps:3} %",
            f"loss {float(self.loss) / self.batches:.3f}",
        ]
        if "val/nelbo" in trainer.callback_metrics:
            parts.append(f"val/nelbo {float(trainer.callback_metrics['val/nelbo']):.3f}")
        parts.append(f"{clock(left)} left")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or with hours: 2:24, 1:02:24.

    >>> clock(144.2), clock(3744)
    ('2:24', '1:02:24')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
