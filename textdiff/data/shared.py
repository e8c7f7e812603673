"""What one process of a training on several makes, and the others of its machine read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import new_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FOLDER = ".textdiff-shared"  # in the run's folder, for as long as it trains


@dataclass(frozen=True)
class Shared:
    """A folder of a run.

    Args:
        folder: where rows and tokenizer are.
        makes: whether this process makes them, or reads them.
    """

    folder: Path
    makes: bool

    @classmethod
    def of(cls, trainer: Any) -> Shared | None:
        """That of a trainer; None if there is nobody to share with."""
        return None if trainer is None or trainer.world_size == 1 else cls.beside(trainer)

    @classmethod
    def beside(cls, trainer: Any) -> Shared:
        """The folder, whether or not there is somebody."""
        return cls(Path(trainer.default_root_dir) / FOLDER, makes=trainer.local_rank == 0)

    def give(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Write the tokenizer."""
        with new_folder(self.folder / "tokenizer") as fresh:
            tokenizer.save_pretrained(fresh)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that was written.

        Raises:
            ValueError: if it was not.
        """
        from transformers import AutoTokenizer

        folder = self.folder / "tokenizer"
        if not folder.is_dir():
            raise self.missing("the tokenizer")
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return tokenizer

    def missing(self, what: str) -> ValueError:
        """The error of a process that is to read what is not there."""
        return ValueError(
            f"the first process of this machine was to write {what} to {self.folder}, and has "
            "not: it says why; without a common disk on one machine, set data.cache_dir"
        )

    def remove(self) -> None:
        """What is mapped into memory stays there."""
        if self.makes:
            shutil.rmtree(self.folder, ignore_errors=True)
