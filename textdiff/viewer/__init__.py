"""See generation: a page to keep, a terminal to watch."""

from .html import page
from .states import TokenState, states
from .terminal import Watcher

__all__ = ["TokenState", "Watcher", "page", "states"]
