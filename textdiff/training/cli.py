"""`textdiff fit | validate | test | predict`: the LightningCLI, with a run folder around it."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, Namespace, set_parsing_settings
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from ..data import PretrainedTokenizer, TextData
from ..files import check_place, new_file, whole, write_text
from ..model import checkpoint
from ..model.folder import CONFIG, load
from ..model.source import find
from ..network import Pretrained
from ..spec import describe, public_path
from ..viewer.terminal import clean
from . import configs, finetuning
from .callbacks import ModelFolder, ProgressLines
from .chosen import Chosen
from .module import TextDiffusion
from .parser import Parser

set_parsing_settings(
    omegaconf_absolute_to_relative_paths=True, subclasses_enabled=list(configs.BASES)
)


NOISE = (  # of Lightning's, about what is meant as it is
    "overrides the configure_model",
    "does not have many workers",
    "isinstance.treespec, LeafSpec",
    "Checkpoint directory .* exists and is not empty",
    "LightningCLI's args parameter is intended",
    "WeightAveraging callback, but loading a checkpoint outside",
    "The dirpath has changed from",
)


class SaveConfig(SaveConfigCallback):
    """Write the resolved config of a training into its run folder."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Only `fit` writes it, so that measuring a run changes nothing in it."""
        if stage == "fit":
            path = Path(trainer.default_root_dir) / "config.yaml"
            config = self.config.clone()
            config.ckpt_path = None  # where this session began is no part of the training
            if config.model.network is None:
                config.model.network = _described(pl_module.architecture)
            with new_file(path) as aside:
                self.parser.save(config, aside, skip_none=False, multifile=False)


class TextDiffusionCLI(LightningCLI):
    """LightningCLI whose `trainer.default_root_dir` is the run folder: model, config, logs and
    checkpoints lie there.

    Args:
        classes: the user's own classes, for the models that a training begins from.
        options: those of LightningCLI.
    """

    def __init__(self, classes: Sequence[type], **options: Any):
        self.classes = classes
        self.base: dict[str, Any] | None = None  # of an adapted model that a training goes on with
        super().__init__(**options)

    def init_parser(self, **options: Any) -> LightningArgumentParser:
        """A parser whose errors are one line."""
        parser = Parser(**options)
        parser.add_argument("-c", configs.OPTION, action=ActionConfigFile, help=configs.__doc__)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed for everything; options of the checkpoints under `--checkpoint`."""
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        saving = {"save_last": True, "filename": "step-{step}", "auto_insert_metric_name": False}
        saving["save_on_exception"] = True
        saving["enable_version_counter"] = (
            False  # else last.ckpt would stay that of the first training in this folder
        )
        parser.set_defaults({f"checkpoint.{name}": value for name, value in saving.items()})

    def before_instantiate_classes(self) -> None:
        """Put the checkpoints into the run folder."""
        config = self.config[self.subcommand]
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(Path(config.trainer.default_root_dir) / "checkpoints")

    def instantiate_classes(self) -> None:
        """A training that goes on has its weights from the checkpoint; the model it once began from
        may be gone.

        A pretrained network brings its own tokenizer, unless the config names one.
        """
        config = self.config[self.subcommand]
        if config.get("weights_only") is False:
            raise ValueError(
                "--weights_only false would run code from a checkpoint, which textdiff does not "
                "do: leave it out"
            )
        # Lightning's own default would run code from a checkpoint at a URL.
        config.weights_only = True
        began = config.model.init_from
        origin = None
        if began is not None and not config.get("ckpt_path"):
            origin = load(began, classes=[*self.classes, *_named(config.model)])
            if config.model.network is None:
                config.model.network = _described(finetuning.architecture(origin))
        config.model.init_from = None
        network = config.model.network
        adapted = network is not None and network.class_path == public_path(Pretrained)
        goes_on = adapted and self.base is not None
        if goes_on:
            network.init_args.config = self.base
        super().instantiate_classes()
        config.model.init_from = began
        if goes_on:
            network.init_args.config = None
        self.model.origin = origin
        name = self.model.architecture.tokenizer
        if name is not None and self.datamodule.spec is None:
            self.datamodule.spec = PretrainedTokenizer(_beside(config.get("ckpt_path")) or name)

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """The network is made later, and its optimiser then: by `Chosen`."""
        named = (self._get(self.config, key) for key in ("optimizer", "lr_scheduler"))
        self.model.chosen = Chosen(*(one.as_dict() if one else None for one in named))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """CSV logs always, TensorBoard's if it is installed, unless the config names loggers.

        On a Mac the CPU is the default: Lightning would take MPS, which has no float64.

        Where stderr is no terminal, lines take the place of the progress bar, unless the config
        says whether there is a bar.
        """
        trainer_config = self.config_init[self.subcommand].trainer
        lines = trainer_config.enable_progress_bar is None and not sys.stderr.isatty()
        if lines:
            kwargs["enable_progress_bar"] = False
        if trainer_config.accelerator == "auto" and MPSAccelerator.is_available():
            kwargs["accelerator"] = "cpu"
            rank_zero_warn("this runs on the CPU, because Apple's MPS has no float64")
        if "cpu" in (trainer_config.accelerator, kwargs.get("accelerator")):  # as was asked for
            warnings.filterwarnings("ignore", message="GPU available but not used")
        if trainer_config.logger in (None, True):
            root = trainer_config.default_root_dir
            loggers: list[Logger] = [CSVLogger(root, name="logs")]
            if importlib.util.find_spec("tensorboard") is not None:
                loggers.append(TensorBoardLogger(root, name="tensorboard"))
            kwargs["logger"] = loggers if self.subcommand == "fit" else False
        trainer: Any = super().instantiate_trainer(**kwargs)
        if lines:
            trainer.callbacks.append(ProgressLines())
        return trainer

    def _parse_ckpt_path(self) -> None:
        """The config alone says what is built; Lightning would let the checkpoint overrule it,
        options of this command too.
        """
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path and Path(path).is_file():
            self.base = checkpoint.base(checkpoint.read(path, device="meta"))

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train; a new run folder is removed again if not even one step could be made."""
        run = Path(self.trainer.default_root_dir)
        fresh = not run.exists()
        try:
            self.trainer.fit(model, **kwargs)
        except Exception:
            if fresh and self.trainer.global_step == 0:
                shutil.rmtree(run, ignore_errors=True)
            raise
        except SystemExit as stop:
            # Lightning's, where a second Ctrl-C did not wait for the end of a batch
            raise SystemExit(130 if stop.code == 1 else stop.code) from None

    def before_fit(self) -> None:
        """Refuse to write over another model, or what cannot be written down."""
        run = Path(self.trainer.default_root_dir)
        if (whole(run) / CONFIG).exists() and self.config.fit.ckpt_path is None:
            raise ValueError(
                f"{run} already holds a model: go on with it "
                f"(--ckpt_path {run}/checkpoints/last.ckpt), name another folder "
                "(--trainer.default_root_dir), or remove it"
            )
        check_place(run / CONFIG, "--trainer.default_root_dir")
        self.model.hparams_plain  # noqa: B018 - refuses

    def _need_checkpoint(self) -> None:
        """An untrained network measures and fills in nothing of use."""
        config = self.config[self.subcommand]
        if config.ckpt_path is None and config.model.init_from is None:
            raise ValueError(
                f"{self.subcommand} needs a trained network: "
                "give --ckpt_path RUN/checkpoints/last.ckpt"
            )

    before_validate = before_test = before_predict = _need_checkpoint

    def after_predict(self) -> None:
        """Print the filled texts, on a terminal without the control characters that it would obey,
        and keep them whole in the run folder, one JSON string a line: a drawn text may hold breaks.
        """
        texts = [text for batch in self.trainer.predict_loop.predictions or [] for text in batch]
        if not self.trainer.is_global_zero:
            return
        shown = "\n".join(texts)
        print(clean(shown) if sys.stdout.isatty() else shown)
        path = Path(self.trainer.default_root_dir) / "predictions.jsonl"
        lines = (json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
        write_text(path, "".join(lines))


def _beside(path: str | None) -> str | None:
    """The folder of the run of a checkpoint, where its tokenizer is; None if it stands alone."""
    if path is None or not Path(path).is_file():
        return None
    try:
        return str(find(path).whole)
    except ValueError:
        return None


def _described(value: Any) -> Namespace:
    """An object as a config holds it."""
    described = describe(value)
    arguments = Namespace(**described["init_args"])
    return Namespace(class_path=described["class_path"], init_args=arguments)


def _named(config: Namespace) -> list[type]:
    """The classes that a config names."""
    paths = [value for key, value in config.items() if key.endswith("class_path")]
    return [configs.imported(path) for path in paths]


def main(arguments: list[str], classes: Sequence[type] = ()) -> None:
    """Run one Lightning sub-command; `classes` are the user's own, for models that are opened."""
    for noise in NOISE:
        warnings.filterwarnings("ignore", message=f".*{noise}.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )
    try:
        TextDiffusionCLI(
            classes,
            model_class=TextDiffusion,
            datamodule_class=TextData,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
            trainer_defaults={
                "default_root_dir": "runs/latest",
                "use_distributed_sampler": False,
                "callbacks": [ModelFolder()],
            },
            parser_kwargs={"parser_mode": "omegaconf+", "allow_abbrev": False},
            args=configs.resolved(arguments, classes),
        )
    except RuntimeError as error:  # Lightning has no class of its own for this one
        if str(error).startswith("Early stopping conditioned on"):
            raise ValueError(str(error)) from error
        raise
