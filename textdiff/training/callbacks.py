"""The callback that writes the model folder at every checkpoint and at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..model.checkpoint import network_state
from ..model.folder import save
from ..viewer import schedules as pictures
from .curves import curves

DRAWN = 256  # tokens of the hyperschedule picture at most


class ModelFolder(Callback):
    """Keep the run's folder (the trainer's default_root_dir) a loadable model: EMA weights, config,
    tokenizer, pictures.

    It must stand after the EMA callback, whose averaged weights it takes from the checkpoint.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the folder from the weights that the checkpoint holds."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            save(
                pl_module.model(), trainer.default_root_dir, network_state(checkpoint["state_dict"])
            )  # type: ignore[operator]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder from the final weights (the EMA callback has put its own in place) and
        draw the pictures.
        """
        whole = (
            trainer.strategy.lightning_module_state_dict()
        )  # all ranks take part where weights are sharded
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        model = pl_module.model()  # type: ignore[operator]
        save(model, run, network_state(whole))
        L = min(model.length, DRAWN)
        try:
            picture = pictures.matrix(model.hyperschedule, L)
        except ValueError:  # start steps given one by one fit one length only
            picture = pictures.matrix(model.hyperschedule, model.length)
        picture.savefig(run / "hyperschedule.png", dpi=150)
        curves(run).savefig(run / "loss.png", dpi=150)
