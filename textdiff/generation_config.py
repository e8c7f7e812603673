"""`textdiff.generation_config.GenerationConfig`, as users write it; its home is `generation`."""

from .generation.config import GenerationConfig

__all__ = ["GenerationConfig"]
