"""textdiff models in lm-evaluation-harness (extra `harness`):
`simple_evaluate(model=TextdiffLM(model), tasks=[...])`.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from ..model.folder import load
from ..model.model import Model
from ..samplers import Ancestral
from . import harness
from .harness import Answer

GENERATION = {"until", "max_gen_toks", "do_sample", "temperature"}


@register_model("textdiff")
class TextdiffLM(LM):
    """All three requests of the harness; what the log-likelihoods are says
    `textdiff.evaluation.harness`.

    Args:
        run: a model, or its folder.
        draws: noisy versions of each request, even; log p of an autoregressive model is exact and
            takes one.
        seed: key of all draws.
        batch_size: requests per network call; changes no result.
        device: where the network runs, for a folder.
    """

    def __init__(
        self,
        run: str | Path | Model,
        draws: int = 16,
        seed: int = 0,
        batch_size: int = 32,
        device: str | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        if left := {name: value for name, value in unused.items() if value is not None}:
            raise ValueError(
                f"TextdiffLM takes no {', '.join(left)}; "
                "it takes run, draws, seed, batch_size and device"
            )
        self.model = run if isinstance(run, Model) else load(run)
        if device is not None:
            self.model.to(device)
        self.draws, self.seed, self.batch_size = int(draws), int(seed), int(batch_size)
        self.answers: list[Answer] = []

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log p of each continuation given its context, nats, and whether it is the greedy one."""
        questions = [harness.encode(self.model, *request.args) for request in requests]
        answers = harness.log_likelihoods(
            self.model, questions, self.draws, self.seed, self.batch_size
        )
        self.answers += answers
        if self.model.prediction != Ancestral.prediction:
            warnings.warn(
                f"greedy decoding is not defined for {self.model.prediction} networks: no "
                "continuation counts as the greedy one",
                stacklevel=2,
            )
            return [(answer.nats, False) for answer in answers]
        greedy = [
            harness.greedy(self.model, question, self.seed)
            for question in tqdm(questions, desc="greedy", disable=None)
        ]
        return [(answer.nats, chosen) for answer, chosen in zip(answers, greedy, strict=True)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log p of each whole text, nats: the sum over disjoint windows of the training length."""
        pieces = [harness.windows(self.model, request.args[0]) for request in requests]
        flat = [question for windows in pieces for question in windows]
        answers = iter(
            harness.log_likelihoods(self.model, flat, self.draws, self.seed, self.batch_size)
        )
        totals = [harness.total([next(answers) for _ in windows]) for windows in pieces]
        self.answers += totals
        return [answer.nats for answer in totals]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """A continuation of each context: greedy, or drawn at the temperature asked for."""
        answers: list[str] = [""] * len(requests)
        groups: dict[tuple, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self._wanted(request.args[1]), []).append(number)
        for (until, most, temperature), numbers in groups.items():
            contexts = [requests[number].args[0] for number in numbers]
            texts = harness.continuations(
                self.model,
                contexts,
                most,
                until=until,
                temperature=temperature,
                seed=self.seed,
                batch_size=self.batch_size,
            )
            for number, text in zip(numbers, texts, strict=True):
                answers[number] = text
        return answers

    def _wanted(self, options: dict[str, Any]) -> tuple[tuple[str, ...], int, float]:
        if unknown := sorted(set(options) - GENERATION):
            raise ValueError(
                f"generate_until takes {', '.join(sorted(GENERATION))}, "
                f"not {', '.join(unknown)}: change the task's options"
            )
        until = options.get("until") or []
        most, limit = options.get("max_gen_toks") or self.model.length // 2, self.model.length - 1
        if most > limit:
            warnings.warn(
                f"max_gen_toks {most} leaves no context of the {limit + 1} tokens of training: "
                f"drawing {limit}",
                stacklevel=2,
            )
        drawn = options.get("do_sample", True) and options.get("temperature", 0.0) > 0
        return (
            tuple([until] if isinstance(until, str) else until),
            min(most, limit),
            options["temperature"] if drawn else harness.GREEDY,
        )

    def summary(self) -> dict[str, Any]:
        """What the log-likelihoods are, and the error of the noise: root mean square over the
        requests, nats.
        """
        errors = [answer.standard_error**2 for answer in self.answers]
        return {
            "likelihood": harness.described(self.model, self.draws),
            "requests": len(errors),
            "tokens": sum(answer.tokens for answer in self.answers),
            "standard_error_of_a_request": math.sqrt(sum(errors) / len(errors)) if errors else None,
            "length": self.model.length,
        }


def evaluate(
    adapter: TextdiffLM,
    tasks: list[str],
    *,
    include: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The metrics of each task.

    Args:
        adapter: the model.
        tasks: names.
        include: folder with YAML tasks of the user's own.
        limit: only the first documents of a task.
        num_fewshot: examples in the context; default: the task's.

    Raises:
        ValueError: if there is no such task.
    """
    manager = TaskManager(include_path=None if include is None else str(include))
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise ValueError(
            f"the harness has no task {', '.join(unknown)}: "
            "see lm_eval ls tasks, or give --include FOLDER"
        )
    report = simple_evaluate(
        adapter,
        tasks=tasks,
        task_manager=manager,
        limit=limit,
        num_fewshot=num_fewshot,
        log_samples=False,
    )
    return report["results"]
