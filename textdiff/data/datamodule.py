"""Everything about data that training and evaluation need, as one LightningDataModule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from . import packing
from .cache import cached
from .corpora import Corpus, TinyShakespeare
from .loading import EvalBatches, Rows, TrainBatches, loader
from .packing import Cursor, Documents, Packed, Padding
from .shared import Shared
from .streaming import StreamBatches, StreamLoader
from .tokenising import pieces
from .tokenizers import Characters, TokenizerSpec, tokenizer_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CORPUS = TinyShakespeare()


class TextData(lightning.LightningDataModule):
    """Rows of `length` tokens of a corpus; needs Trainer(use_distributed_sampler=False): batches
    are shared out here.

    `tokenizer` is by default that of a pretrained network, else `Characters`.
    `batch_size` and `eval_batch_size` (default: the same) count the rows of one step over all
    ranks. `documents` is joined, separate or single; `padding` says whether the EOS that fills a
    short row is learnt or ignored (see `textdiff.data.packing`). The order of the training rows is
    a pure function of (seed, epoch). `cache_dir` keeps packed splits on disk, memory-mapped.
    `predict` is the file of texts whose `[MASK]` `textdiff predict` fills, one a line.

    Raises ValueError for a length, batch size or choice out of range.
    """

    def __init__(
        self,
        corpus: Corpus = _CORPUS,
        tokenizer: TokenizerSpec | None = None,
        length: int = 128,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        documents: Documents = "joined",
        padding: Padding = "learnt",
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
        predict: str | None = None,
    ) -> None:
        super().__init__()
        packing.check(length, documents, padding)
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if corpus.streaming and num_workers > 1:
            raise ValueError(
                f"one worker reads a stream: set num_workers to 0 or 1 instead of {num_workers}"
            )
        self.corpus = corpus
        self.spec = tokenizer
        self.length = length
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.documents = documents
        self.padding = padding
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.predict = predict
        self._tokenizer: PreTrainedTokenizerFast | None = None
        self._packed: dict[str, Packed] = {}
        self._places: dict[int, Cursor] = {}
        self._restored: dict[str, Any] = {}

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, built on first use; assign a ready one (such as a saved model's) to use
        that instead.
        """
        if self._tokenizer is None:
            shared = Shared.of(self.trainer)
            if shared is None or shared.makes:
                self._tokenizer = (self.spec or Characters()).build(self.corpus)
            else:
                self._tokenizer = shared.tokenizer()
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerFast) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no EOS token to end documents with: set its eos_token"
            )
        self._tokenizer = tokenizer
        self._packed = {}

    def packed(self, split: str) -> Packed:
        """The rows of a split, made on first use and kept; ValueError if the split is empty."""
        if split not in self._packed:
            shared = Shared.of(self.trainer)
            folder = self.cache_dir or (None if shared is None else str(shared.folder))
            key = self.provenance(split) if folder else {}
            self._packed[split] = cached(folder, key, lambda: self._pack(split))
        return self._packed[split]

    def provenance(self, split: str) -> dict[str, Any]:
        """Plain values that determine the rows of a split: corpus, tokenizer hash, length and
        packing rules.
        """
        return self.corpus.provenance(split) | {
            "tokenizer": tokenizer_hash(self.tokenizer),
            "length": self.length,
            "documents": self.documents,
            "padding": self.padding,
        }

    def prepare_data(self) -> None:
        """The first process of a machine makes the tokenizer and the rows; the others read them,
        mapped into memory.
        """
        trainer: Any = self.trainer
        stage = trainer.state.fn
        Shared.beside(trainer).remove()  # what a killed run left
        if (shared := Shared.of(trainer)) is not None:
            shared.give(self.tokenizer)
        if stage == "fit" and not self.corpus.streaming:
            self.packed("train")
        if stage in ("fit", "validate") and trainer.limit_val_batches:
            self.packed("validation")
        if stage == "test":
            self.packed("test")

    def teardown(self, stage: str) -> None:
        """Nothing is shared any more."""
        if (shared := Shared.of(self.trainer)) is not None:
            shared.remove()

    def train_dataloader(self) -> DataLoader[Rows]:
        """Batches of the train split from the trainer's current place on."""
        rank, world_size = self._ranks(self.batch_size, "batch_size")
        if not self.corpus.streaming:
            packed = self.packed("train")
            self._check_restored()
            batches = TrainBatches(packed, self.batch_size, self.seed, rank, world_size)
            return loader(batches, self.num_workers, self._processed)
        self._check_restored()
        stream = StreamBatches(
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            length=self.length,
            batch_size=self.batch_size,
            documents=self.documents,
            padding=self.padding,
            rank=rank,
            world_size=world_size,
        )
        return StreamLoader(stream, self._processed, self._places, background=self.num_workers > 0)

    def eval_dataloader(self, split: str, limit: int | None = None) -> DataLoader[Rows]:
        """Every row of a split (of its first `limit` rows) once over all ranks, in order."""
        rank, world_size = self._ranks(self.eval_batch_size, "eval_batch_size")
        packed = self.packed(split).first(limit)
        batches = EvalBatches(packed, self.eval_batch_size, rank, world_size)
        return loader(batches, self.num_workers)

    def val_dataloader(self) -> DataLoader[Rows]:
        """Every row of the validation split once over all ranks."""
        return self.eval_dataloader("validation")

    def test_dataloader(self) -> DataLoader[Rows]:
        """Every row of the test split once over all ranks."""
        return self.eval_dataloader("test")

    def predict_dataloader(self) -> DataLoader[list[str]]:
        """The lines of the `predict` file as lists of texts; ValueError if none is given or it
        cannot be read.
        """
        if self.predict is None:
            raise ValueError(
                "predict needs texts with [MASK] to fill: give a file of one text a line as "
                "--data.predict FILE"
            )
        try:
            text = Path(self.predict).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"cannot read {self.predict!r} ({error}): give a UTF-8 text file of one text a line"
            ) from error
        if not text.strip():
            raise ValueError(
                f"{self.predict!r} holds no text: give one text a line, with [MASK] where tokens "
                "are to be filled"
            )
        # blank ones too: line i of the result is line i of the file
        lines: Any = text.removesuffix("\n").split("\n")
        return DataLoader(lines, batch_size=self.eval_batch_size, collate_fn=list)

    def state_dict(self) -> dict[str, Any]:
        """The settings that the order depends on and the place in a stream; else the trainer's
        count is the place.
        """
        processed = self._processed()
        place = self._places.get(processed)
        if place is None:
            return self._settings()
        return self._settings() | {"processed": processed, "place": vars(place)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the place in a stream, and remember the settings to compare them when training
        goes on.
        """
        self._restored = dict(state_dict)
        place = self._restored.pop("place", None)
        self._places.clear()
        if place is not None:
            self._places[self._restored.pop("processed")] = Cursor(**place)

    def _settings(self) -> dict[str, Any]:
        names = ("batch_size", "length", "seed", "documents")
        rows = {"rows": len(self._packed["train"])} if "train" in self._packed else {}
        return {name: getattr(self, name) for name in names} | rows

    def _check_restored(self) -> None:
        here = self._settings()
        changed = [
            f"{name} {value} -> {here[name]}"
            for name, value in self._restored.items()
            if name in here and here[name] != value
        ]
        if changed:
            rank_zero_warn(
                f"resumed with other data ({', '.join(changed)}): some rows will repeat or be left "
                "out"
            )

    def _pack(self, split: str) -> Packed:
        shared = Shared.of(self.trainer)
        if shared is not None and not shared.makes:
            raise shared.missing(f"the {split} split")
        alone = self.trainer is None or self.trainer.is_global_zero
        progress = f"tokenising {split}" if alone else None
        tokens = pieces(self.tokenizer, self.corpus.documents(split), progress)
        eos = self.tokenizer.eos_token_id
        try:
            return packing.pack_pieces(
                tokens, self.length, eos, self.documents, padding=self.padding
            )
        except ValueError as error:
            raise ValueError(f"{split} split of {self.corpus.name}: {error}") from error

    def _ranks(self, batch_size: int, name: str) -> tuple[int, int]:
        if self.trainer is None:
            if not (dist.is_available() and dist.is_initialized()):
                return 0, 1
            return dist.get_rank(), dist.get_world_size()
        world_size = self.trainer.world_size
        if batch_size % world_size:
            raise ValueError(
                f"{name} {batch_size} counts the rows over all ranks: make it a multiple of "
                f"{world_size}"
            )
        if world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "TextData shares out the batches itself: set Trainer(use_distributed_sampler=False)"
            )
        return self.trainer.global_rank, world_size

    def _processed(self) -> int:
        # Counted after each training step and restored before the loader is made, wherever in an
        # epoch a run was cut.
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.processed
