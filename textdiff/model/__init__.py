"""A network and all that belongs to it: the model, its folder, where it comes from, how it
travels.
"""

from .model import Model

__all__ = ["Model"]
