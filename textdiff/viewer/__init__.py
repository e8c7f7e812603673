"""See generation: a page to keep, a terminal to watch."""

from .html import page
from .states import State, states
from .terminal import Watcher

__all__ = ["State", "Watcher", "page", "states"]
