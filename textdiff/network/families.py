"""Which pretrained language models can be denoisers, and their configs and no more."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from .base import own_arguments

FAMILIES = ("gpt2", "llama")
"""Every layer of these attends to all that it may see: none has sliding windows of its own."""
GROWING_ROPE = ("dynamic", "longrope")
DROPOUTS = ("attn_pdrop", "resid_pdrop", "embd_pdrop", "attention_dropout")


def check_family(config: PreTrainedConfig) -> None:
    """Raise a ValueError unless a base of this config can be a denoiser whose cached keys never
    change.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(f"it is a {config.model_type!r}, not one of {', '.join(FAMILIES)}")
    rope = getattr(config, "rope_parameters", None)
    if rope and rope["rope_type"] in GROWING_ROPE:
        raise ValueError(
            f"its {rope['rope_type']!r} positions depend on the longest one seen, so keys cannot "
            "be cached"
        )


def base_config(values: dict[str, Any]) -> PreTrainedConfig:
    """The base's config of its family's own arguments, without dropout; nothing else that a file
    says reaches transformers, which would fetch code for some of it (`attn_implementation`).
    """
    kind = values.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"it is a {kind!r}, not one of {', '.join(FAMILIES)}")
    made = CONFIG_MAPPING[kind]
    without_dropout = {name: 0.0 for name in DROPOUTS if name in values}
    config = made(**own_arguments(made, values | without_dropout))
    check_family(config)
    return config
