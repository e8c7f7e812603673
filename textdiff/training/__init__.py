"""Training on Lightning: the module, the optimiser, callbacks, curves, the command line."""

from .module import TextDiffusion

__all__ = ["TextDiffusion"]
