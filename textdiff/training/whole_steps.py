"""A checkpoint holds whole steps: whenever it is written, a resume from it is exact."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging

from . import whole_files

STOPS = (signal.SIGINT, signal.SIGTERM)


class Diverged(ValueError):
    """The loss is no number any more, so the weights are not worth keeping."""


class WholeSteps(Callback):
    """Saves the run's place as of its last optimiser step, and stops only between batches.

    Gradients are in no checkpoint. One that is written in the middle of an accumulation (the first
    micro-batch after a resume, a validation, an exception) therefore says that the run stands where
    the last step ended; nothing else has changed since:

        micro-batch   1   2 | 3   4 | 5   6
        step                1       2
        written                   ^   says: two micro-batches, one step

    SIGINT and SIGTERM end the training before its next batch (of validation, too), on all ranks,
    with the exit codes 130 and 143; `ModelCheckpoint(save_on_exception=True)` saves then.
    """

    def __init__(self) -> None:
        self.place: dict[str, Any] | None = None  # of the data and the loops, at the last step
        self.step = 0
        self.inside = False  # an accumulation
        self.torn = False  # inside the optimiser's step
        self.averaged = False  # the network holds the weights that are validated
        self.asked: int | None = None  # the signal that asks to stop
        self.handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write whole files; forget another training's place."""
        whole_files.use(trainer)
        self.place = None
        self.inside = False
        self.torn = False
        self.averaged = False
        self.asked = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The place that the run goes on from."""
        if "loops" in checkpoint:
            data = checkpoint.get(_name(trainer))
            self.place = {"fit_loop": checkpoint["loops"]["fit_loop"], "data": data}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the end of a batch."""
        self.step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._ask) for number in STOPS}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stop here, if asked to."""
        self._stop(trainer)
        self.inside = True

    def on_before_optimizer_step(self, *_: Any) -> None:
        """From here on the weights may be half a step further."""
        self.torn = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Note the place if a step was made."""
        self.torn = False
        if trainer.global_step != self.step:
            self.step = trainer.global_step
            self.inside = False
            data = _data(trainer)
            self.place = {
                "fit_loop": trainer.fit_loop.state_dict(),
                "data": None if data is None else data.state_dict(),
            }

    def on_validation_epoch_start(self, *_: Any) -> None:
        """After the callback that averages weights."""
        self.averaged = True

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stop here, if asked to."""
        if not trainer.sanity_checking:
            self._stop(trainer)

    def on_validation_epoch_end(self, *_: Any) -> None:
        """As above."""
        self.averaged = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the trained weights back in place, and let none be saved that are half a step
        further or no numbers.
        """
        self._restore()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if self.averaged and isinstance(callback, WeightAveraging):
                callback.on_validation_epoch_end(trainer, pl_module)
            if isinstance(callback, ModelCheckpoint):
                worthless = self.torn or isinstance(exception, Diverged)
                callback.save_on_exception = callback.save_on_exception and not worthless
        self.averaged = False
        self.inside = True  # a validation that was cut is not gone on with

    def on_train_end(self, *_: Any) -> None:
        """Signals are as before."""
        self._restore()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """In the middle of an accumulation the place is that of the last step."""
        if self.inside and self.place is not None:
            checkpoint["loops"] = checkpoint["loops"] | {"fit_loop": self.place["fit_loop"]}
            if self.place["data"] is not None:
                checkpoint[_name(trainer)] = self.place["data"]

    def _ask(self, number: int, _: Any) -> None:
        """The handler of the signals; a second Ctrl-C stops at once."""
        self.asked = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            print("stopping after this batch (Ctrl-C again: at once)", file=sys.stderr, flush=True)

    def _stop(self, trainer: Trainer) -> None:
        asked = self.asked is not None
        if trainer.world_size > 1:  # all ranks at the same batch, or one would wait for another
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            raise SystemExit(128 + (self.asked or signal.SIGTERM))

    def _restore(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


def _data(trainer: Trainer) -> Any:
    """The data module, if there is one."""
    known: Any = trainer
    return known.datamodule


def _name(trainer: Trainer) -> str:
    """Where a checkpoint holds the place in the data."""
    return type(_data(trainer)).__qualname__
