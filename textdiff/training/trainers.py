"""What a trainer must not be asked for."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder


def check(trainer: Trainer) -> None:
    """Refuse what would do nothing, or could not.

    Raises:
        ValueError: if the device has no float64, or a callback sets what the training does not
            look at again.
    """
    if trainer.strategy.root_device.type == "mps":
        raise ValueError(
            "Apple's MPS has no float64, in which bounds are summed: use trainer.accelerator cpu"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            option = "lr" if isinstance(callback, LearningRateFinder) else "batch_size"
            where = "model" if option == "lr" else "data"
            raise ValueError(
                f"{type(callback).__name__} sets what the schedule and the data no longer look at: "
                f"leave it out and set {where}.{option}; a few short runs compare values of it"
            )
