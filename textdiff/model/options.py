"""The options of a generation, checked against the model that is to be drawn from."""

from __future__ import annotations

from typing import Any

from ..denoiser.prediction import require
from ..generation.config import GenerationConfig
from .trained import Trained


def options_of(model: Trained, given: Any, options: dict[str, Any]) -> GenerationConfig:
    """The config that a caller gave, or the model's, with other options.

    Raises:
        ValueError: if an option does not exist, or is not for this model.
    """
    chosen = model.generation_config if given is None else given
    config = GenerationConfig.of(chosen).but(**options)
    for stage in config.sampler.stages:
        require(model.prediction, stage.prediction, stage)
    for name, ids in (
        ("eos_token_id", config.ends),
        ("suppress_tokens", config.suppress_tokens),
    ):
        if outside := [token for token in ids if not 0 <= token < model.mask_id]:
            raise ValueError(f"{name} must lie in 0..{model.mask_id - 1}, got {outside[0]}")
    if config.repetition_penalty != 1 and model.process.corrupts:
        raise ValueError(
            f"repetition_penalty={config.repetition_penalty} needs noise that only masks, not "
            f"{model.process}: what stands in a text that is being drawn may be noise"
        )
    return config
