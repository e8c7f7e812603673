"""What a request may cost, decided before a tensor is made for it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..generation.config import GenerationConfig
from ..model import laws
from ..model.model import Model
from .errors import Refused

DEPTH = 6
"""Nested calls in the text of a sampler, at most."""


@dataclass(frozen=True)
class Limits:
    """The most that a request may ask for, and that a server holds.

    Args:
        length: tokens of a sequence, the prompt too.
        sequences: drawn at a time.
        queue: sequences that wait beside them.
        calls: network calls of a sequence, K = T + max s, for each stage of its sampler.
        body: bytes of a request.
        deadline: seconds until a request is given up.
    """

    length: int = 1024
    sequences: int = 16
    queue: int = 64
    calls: int = 4096
    body: int = 1 << 20
    deadline: float = 300.0

    def __post_init__(self) -> None:
        least = {"queue": 0, "deadline": 0.01}
        for name, value in vars(self).items():
            if value < least.get(name, 1):
                raise ValueError(f"{name} must be >= {least.get(name, 1)}, got {value}")

    def named(self, field: str, text: str | None) -> Any:
        """The sampler or hyperschedule that the text of that field names, one of textdiff's own;
        None if it is left out.

        Raises:
            Refused: if there is none of that name, its arguments are wrong, or one is larger than
                any call needs.
        """
        if text is None:
            return None
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            those = ", ".join(laws.known(field))
            raise Refused(400, f"{field}: cannot read {text!r}; one of: {those}", field) from None
        if _depth(tree.body) > DEPTH:
            raise Refused(400, f"{field}: more than {DEPTH} levels deep", field)
        numbers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        most = max((abs(x) for x in numbers if isinstance(x, int | float)), default=0)
        if most > self.calls:
            raise Refused(400, f"{field}: {most:g} is more than the {self.calls} allowed", field)
        try:
            return laws.named(field, text)
        except ValueError as error:
            raise Refused(400, f"{field}: {error}", field) from None

    def check_text(self, text: str | Sequence[int], longest: int) -> None:
        """Refuse a text that cannot fit before it is encoded: no token has more than `longest`
        characters.
        """
        most = self.length * (longest if isinstance(text, str) else 1)
        if len(text) > most:
            kind = "characters" if isinstance(text, str) else "tokens"
            raise Refused(
                400, f"prompt: {len(text)} {kind} are more than fit: shorten it", "prompt"
            )

    def check(self, config: GenerationConfig, model: Model, length: int) -> None:
        """Refuse a sequence that is too long or takes too many calls."""
        if length > self.length:
            raise Refused(
                400,
                f"prompt, new tokens and suffix have {length} tokens, this server takes "
                f"{self.length}: shorten them",
                "max_tokens",
            )
        schedule = config.schedule(model.hyperschedule)
        if schedule.T > self.calls:
            calls = schedule.T
        else:
            if not schedule.fits(length):
                raise Refused(
                    400, f"hyperschedule: {schedule} is not for {length} tokens", "hyperschedule"
                )
            calls = schedule.calls(length) * len(config.sampler.stages)
        if calls > self.calls:
            raise Refused(
                400,
                f"{schedule} with {config.sampler} takes {calls} network calls for {length} "
                f"tokens, this server allows {self.calls}: take fewer levels",
                "hyperschedule",
            )


def _depth(node: ast.AST) -> int:
    """Levels of a syntax tree; its text is short, so it cannot be deep enough to harm."""
    return 1 + max((_depth(child) for child in ast.iter_child_nodes(node)), default=0)
