"""Which pretrained language models can be denoisers, and their configs and no more."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from .base import own_arguments

FAMILIES = ("gpt2", "llama", "qwen2", "qwen3", "mistral", "smollm3", "gemma3_text")
"""Those whose layers hand queries, keys and values to `transformers`' attention functions."""
GROWING_ROPE = ("dynamic", "longrope")
DROPOUTS = ("attn_pdrop", "resid_pdrop", "embd_pdrop", "attention_dropout")


def check_family(config: PreTrainedConfig) -> None:
    """Raise a ValueError unless a base of this config can be a denoiser whose cached keys never
    change.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(f"it is a {config.model_type!r}, not one of {', '.join(FAMILIES)}")
    _check_sight(config)
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer = [rope] if "rope_type" in rope else [one for one in rope.values() if one]
    for one in by_layer:
        if one["rope_type"] in GROWING_ROPE:
            raise ValueError(
                f"its {one['rope_type']!r} positions depend on the longest one seen, so keys "
                "cannot be cached"
            )


def _check_sight(config: PreTrainedConfig) -> None:
    """Raise a ValueError unless every layer sees all that a call may see, and scores as we do."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if getattr(config, "sliding_window", None) is not None and not kinds:  # Mistral's
        kinds = {"sliding_attention"}
    other = sorted(kinds - {"full_attention"})
    if other:
        raise ValueError(
            f"it has layers of {other[0]!r}, which do not see all that a call may see: take a base "
            "whose layers are all 'full_attention' (no sliding window)"
        )
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name, None) is not None:
            raise ValueError(f"its {name} is {getattr(config, name)!r}, of which we have none")


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
