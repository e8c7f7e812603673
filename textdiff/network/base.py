"""What our networks share: the properties of a denoiser, read from a config of transformers."""

from __future__ import annotations

from transformers import PreTrainedModel


class DenoiserModel(PreTrainedModel):
    """A `PreTrainedModel` behind the denoiser protocol; a network that differs in one of these says
    so.
    """

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.config.num_tokens

    @property
    def shifted(self) -> bool:
        """Whether row j-1 predicts token j."""
        return self.config.shifted

    @property
    def bos(self) -> int:
        """The id in front of a shifted sequence."""
        return self.config.bos

    @property
    def sees_time(self) -> bool:
        """Whether the network looks at t."""
        return self.config.conditioned

    @property
    def cacheable(self) -> bool:
        """Whether time conditions each row by itself (`maths.md` 6, C4)."""
        return True

    @property
    def self_noise(self) -> float | None:
        """The self-noise for which the logits are a posterior's (4.2); None: they are what the
        model's prediction says.
        """
        return None
