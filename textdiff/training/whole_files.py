"""Checkpoints that are whole or not there, wherever temporary files go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer

from ..files import new_file


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place. Lightning's writes it to TMPDIR, and if that is on
    another file system it is copied into place, where a kill leaves a part of it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; one at a URL as Lightning does."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with new_file(Path(path)) as aside, aside.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # a full disk
                    raise error.__context__ from None
                raise


def use(trainer: Trainer) -> None:
    """Have a trainer write its checkpoints so, unless it was given a plugin of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFiles()
