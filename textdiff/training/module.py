"""The LightningModule: draw noise, call the network, sum the objective, log bounds by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torchmetrics import MeanMetric

from ..data.tokenizers import num_tokens_of, tokenizer_hash
from ..hyperschedule import Flat, Hyperschedule
from ..model.folder import load
from ..model.model import Model
from ..model.requests import MASK_TEXT
from ..model.trained import check_tokenizer
from ..network import Architecture, Transformer
from ..network.base import DenoiserModel
from ..noise import Noise, Stream, uniform
from ..objective import Batch, Bound, Estimator, Nelbo, Objective, Stratified
from ..objective.batch import check_packing
from ..objective.bounds import bounds_of_each
from ..process import EpsilonHybrid, Process
from ..samplers import Ancestral, Sampler
from ..spec import build, describe
from . import finetuning, trainers
from .chosen import Chosen
from .mixing import schedule_of_batch
from .optimiser import Optimiser, steps_of
from .whole_steps import Diverged, WholeSteps

TOKENIZER = "tokenizer"  # a checkpoint's hash of the tokenizer


class TextDiffusion(LightningModule):
    """Train a hybrid diffusion language model.

    Args:
        process: what noise does to one token.
        hyperschedule: which position is at which noise level at which call.
        objective: what a row of logits is worth; it also decides what the network predicts.
        network: the network's shape; by default that of `init_from`, else `Transformer()`.
        init_from: a model to begin from, or its folder, .ckpt or Hub id: its weights only, and only
            if network and tokenizer are the same.
        estimator: how noise levels are drawn in training.
        sampler: how `predict` fills `[MASK]`.
        lr: peak learning rate of AdamW.
        betas: AdamW's moments.
        weight_decay: on matrices only.
        warmup: steps of linear warm-up.
        final_lr: share of `lr` at the end of the cosine, in [0, 1].
        compile: run the network's blocks through `torch.compile`; the first steps take a minute.
        seed: key of all noise.
        num_tokens: N; by default that of the data's tokenizer.
        bos: id in front of a shifted sequence; by default that of the data's tokenizer.
    """

    def __init__(
        self,
        process: Process = EpsilonHybrid(),  # noqa: B008 - frozen
        hyperschedule: Hyperschedule = Flat(),  # noqa: B008
        objective: Objective = Nelbo(),  # noqa: B008
        network: Architecture | None = None,
        estimator: Estimator = Stratified(),  # noqa: B008
        sampler: Sampler = Ancestral(),  # noqa: B008
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        warmup: int = 100,
        final_lr: float = 0.1,
        compile: bool = False,
        seed: int = 0,
        num_tokens: int | None = None,
        bos: int | None = None,
        init_from: str | Model | None = None,
    ):
        super().__init__()
        # Checkpoints hold these as plain values ({class_path, init_args}), so they come back as
        # such.
        self.process: Process = build(process, Process)
        self.hyperschedule = build(hyperschedule, Hyperschedule)
        self.objective = build(objective, Objective)
        self.origin = load(init_from) if isinstance(init_from, str | Path) else init_from
        self.architecture = build(network or _shape(self.origin), Architecture)
        self.estimator = build(estimator, Estimator)
        self.sampler = build(sampler, Sampler)
        self.objective.check(self.process)
        self.optimiser = Optimiser(lr, betas, weight_decay, warmup, final_lr)
        self.chosen = Chosen()
        self.compiled = compile
        self.seed = seed
        self.num_tokens = num_tokens
        self.bos = bos
        self.network: DenoiserModel | None = None
        self.metrics: dict[str, MeanMetric] = {}
        if num_tokens is not None:
            self._build_network(num_tokens)

    def _build_network(self, num_tokens: int) -> None:
        self.network = self.architecture.build(num_tokens, self.process.needs_time, self.bos or 0)
        self.decayed = {name for name, p in self.named_parameters() if p.ndim >= 2}

    @property
    def denoiser(self) -> DenoiserModel:
        """The network, which is there once the tokenizer is known."""
        if self.network is None:
            raise ValueError("the network is not built yet: attach a trainer with its data first")
        return self.network

    @property
    def _data(self) -> Any:
        """What the trainer was given beside this module."""
        trainer: Any = self.trainer
        return trainer.datamodule

    @property
    def _tokenizer(self) -> Any:
        """The data's."""
        return self._data.tokenizer

    def configure_model(self) -> None:
        """Build the network once the tokenizer is known."""
        tokenizer = None if self._trainer is None else self._tokenizer
        if self.network is None and tokenizer is not None:
            self.num_tokens = num_tokens_of(tokenizer)
            self.bos = tokenizer.bos_token_id
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                self._build_network(self.num_tokens)
        elif self.network is not None and tokenizer is not None:
            check_tokenizer(tokenizer, self.network.num_tokens)
        if self.origin is not None and tokenizer is not None:
            finetuning.give(self.origin, self.network, tokenizer, self.objective.prediction)
            self.origin = None

    @property
    def bound(self) -> Bound:
        """What training minimises."""
        return Bound("loss", self.process, self.hyperschedule, self.objective, self.estimator)

    @property
    def hparams_plain(self) -> dict[str, Any]:
        """Every argument as a plain value, enough to build this module again."""
        objects = {
            "process": self.process,
            "hyperschedule": self.hyperschedule,
            "objective": self.objective,
            "network": self.architecture.stored(self.network),
            "estimator": self.estimator,
            "sampler": self.sampler,
        }
        plain = {"seed": self.seed, "num_tokens": self.num_tokens, "bos": self.bos}
        described = {
            name: describe(value)
            for name, value in (objects | vars(self.optimiser) | plain).items()
        }
        return described | {"compile": self.compiled}

    def configure_callbacks(self) -> list[Callback]:
        """Checkpoints hold whole steps, whoever writes them."""
        trainers.check(self.trainer)
        return [WholeSteps()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep plain values only: `weights_only` loading works, and a fresh process can rebuild the
        module.
        """
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = self.hparams_plain
        checkpoint[TOKENIZER] = tokenizer_hash(self._tokenizer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another network or tokenizer; a resume has the numbers of now."""
        saved = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        if "network" not in saved:
            raise ValueError("this checkpoint is not one that textdiff wrote")
        if self._trainer is not None:
            tokenizer = self._tokenizer
            check_tokenizer(tokenizer, saved["num_tokens"])
            if checkpoint.get(TOKENIZER, "unknown") not in ("unknown", tokenizer_hash(tokenizer)):
                raise ValueError(
                    "the checkpoint was trained with another tokenizer: "
                    "use its config.yaml and the same training text"
                )
        finetuning.check_checkpoint(saved, (self.architecture, self.process, self.objective))
        if self._trainer is not None and self.trainer.state.fn == "fit":
            self.chosen.resume(self.optimiser, checkpoint, steps_of(self.trainer, self._data))

    def model(self) -> Model:
        """What is saved and sampled: the network with all that belongs to it."""
        data = self._data
        packing = {"documents": data.documents, "padding": data.padding}
        return Model(
            self.denoiser,
            self.process,
            self.hyperschedule,
            tokenizer=data.tokenizer,
            length=data.length,
            prediction=self.objective.prediction,
            data={"corpus": describe(data.corpus)} | packing,
            documents=data.documents,
        )

    def setup(self, stage: str) -> None:
        """Refuse data that would show the network where documents end."""
        data = self._data
        if data is not None and stage != "predict":
            check_packing(self.hyperschedule, data.length, data.documents, data.padding)

    def on_fit_start(self) -> None:
        """Compile, if asked to; in place, so that names in checkpoints stay the same."""
        if self.compiled:
            self.denoiser.compile()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """The objective, nats per position; rows are named by their place in the run, so
        accumulation and ranks do not matter.
        """
        sequences = Batch.of(batch)
        if self.denoiser.config.dropout:
            first = sequences.slot[0].cpu()
            key = uniform(self.seed, 0, first, 0, Stream.DROPOUT)
            torch.manual_seed(int(key * 2**52))
        noise = Noise(self.seed, sequences.slot)
        rows = (sequences.slot, self._data.batch_size)
        schedule = schedule_of_batch(self.hyperschedule, self.seed, *rows)
        bound = replace(self.bound, hyperschedule=schedule)
        loss = bound.nats(self.denoiser, sequences, noise).total / sequences.ids.numel()
        finite = bool(loss.detach().isfinite())
        # All ranks stop, none waits for another.
        if not self.trainer.strategy.reduce_boolean_decision(finite):
            raise Diverged(
                f"the loss is {loss.item()} at step {self.global_step}: lower lr or clip gradients"
            )
        self.log("loss", loss, prog_bar=True, batch_size=len(sequences.ids), sync_dist=True)
        return loss

    def _measure(self, stage: str, batch: dict[str, Tensor]) -> None:
        sequences = Batch.of(batch)
        tokens = sequences.scored.sum()
        seen = {"prediction": self.objective.prediction, "sees_time": self.denoiser.sees_time}
        L = sequences.ids.shape[-1]
        for name, bound in bounds_of_each(self.process, self.hyperschedule, L, **seen).items():
            noise = Noise(self.seed, sequences.example, step=1)
            nats = bound.nats(self.denoiser, sequences, noise).values.sum()
            key = f"{stage}/{name}"
            if key not in self.metrics:
                mean = MeanMetric()
                mean.set_dtype(torch.float64)
                self.metrics[key] = mean.to(self.device)
            self.metrics[key].update(nats / tokens, tokens)

    def _report(self, stage: str) -> None:
        for name, metric in self.metrics.items():
            if name.startswith(stage):
                self.log(name, metric.compute(), prog_bar=name.endswith("nelbo"), sync_dist=False)
                metric.reset()

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        """One draw of every bound that can be stated, nats per token, with the same noise in every
        epoch.
        """
        self._measure("val", batch)

    def test_step(self, batch: dict[str, Tensor], _: int) -> None:
        """As `validation_step`, on the test split."""
        self._measure("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all tokens."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the means over all tokens."""
        self._report("test")

    def predict_step(self, batch: list[str], index: int) -> list[str]:
        """Fill `[MASK]` in a batch of texts; texts without one stay as they are."""
        first = index * self._data.eval_batch_size
        model = self.model()
        filled = list(batch)
        for row, text in enumerate(batch):
            if MASK_TEXT in text:
                sampler = {"sampler": self.sampler, "seed": self.seed, "first": first + row}
                filled[row] = model.generate(text, **sampler).texts[0]
        return filled

    def configure_optimizers(self) -> Any:
        """AdamW and its cosine, as `Optimiser` has them, unless others were `chosen`."""
        steps = steps_of(self.trainer, self._data)
        return self.chosen.configured(self.optimiser, self, steps)


def _shape(origin: Model | None) -> Architecture:
    """The network's shape where none is stated."""
    return Transformer() if origin is None else finetuning.architecture(origin)
