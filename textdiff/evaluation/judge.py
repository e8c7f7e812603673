"""Judges: a causal language model scores texts, and it or a sentence encoder turns them into
features for MAUVE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import reason

FIELD_JUDGE = "openai-community/gpt2-large"
CAUSAL = ("ForCausalLM", "LMHeadModel")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Scores:
    """What a judge says about n texts.

    Args:
        nats: [n] float64, -log p of the scored tokens of each text.
        scored: [n] how many tokens that are; 0 where nothing can be scored.
        ids: the judge's tokens of each text, after truncation.
        truncated: how many texts were longer.
    """

    nats: Tensor
    scored: Tensor
    ids: list[list[int]]
    truncated: int


@dataclass(frozen=True)
class Judge:
    """A network of `transformers` with its tokenizer; `open_judge` makes one.

    Args:
        name: as the user gave it.
        network: in eval mode; a causal language model or an encoder.
        tokenizer: its tokenizer.
        causal: which of the two.
    """

    name: str
    network: Any
    tokenizer: Any
    causal: bool

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over names and values of all weights: what the numbers depend on, wherever the
        files came from.
        """
        digest = hashlib.sha256()
        for name, weight in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def as_dict(self) -> dict[str, str]:
        """Name, weights and precision, for JSON."""
        kind = "causal language model" if self.causal else "encoder"
        return {
            "name": Path(self.name).name,
            "kind": kind,
            "weights_sha256": self.sha256,
            "dtype": str(self.network.dtype)[6:],
        }

    @property
    def end(self) -> str:
        """The text behind a document in running text: the judge's EOS; of an encoder without one a
        line break.
        """
        return str(self.tokenizer.eos_token or "\n")

    @property
    def context(self) -> int | None:
        """How many tokens the network reads, its own marks among them; None: any number."""
        most = getattr(self.network.config, "max_position_embeddings", None)
        embeddings = getattr(self.network.base_model, "embeddings", None)
        padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
        # RoBERTa counts positions from behind that of padding
        return most if most is None or padding is None else most - padding - 1

    def encode(
        self, texts: Sequence[str], max_tokens: int | None, marks: int = 0
    ) -> tuple[list[list[int]], int]:
        """The first `max_tokens` tokens of each text (None: all), without special tokens, and how
        many texts were cut.

        Args:
            texts: the texts.
            max_tokens: of each.
            marks: special tokens that the network is to read beside those of a text.

        Raises:
            ValueError: if this is more than the network's context.
        """
        ids = [
            self.tokenizer.encode(text, add_special_tokens=False, verbose=False) for text in texts
        ]
        longest = max(map(len, ids), default=0)
        asked = longest if max_tokens is None else max_tokens
        most = asked if self.context is None else self.context - marks
        if not 0 <= asked <= most:
            beside = f" beside {marks} of its own" if marks else ""
            raise ValueError(
                f"{self.name} reads up to {most} tokens{beside}, not {asked}: choose a maximum "
                "within this range"
            )
        return [row[:asked] for row in ids], sum(len(row) > asked for row in ids)

    def _batches(
        self, ids: list[list[int]], batch_size: int
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Rows of like length together: (their numbers, ids [B, R] padded at the right, mask [B,
        R]).
        """
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            lengths = torch.tensor([len(ids[row]) for row in rows])
            mask = torch.arange(int(lengths.max())) < lengths[:, None]
            table = torch.zeros(mask.shape, dtype=torch.int64)
            tokens = [token for row in rows for token in ids[row]]
            table[mask] = torch.tensor(tokens, dtype=torch.int64)
            yield rows, table.to(self.network.device), mask.to(self.network.device)

    @torch.no_grad()
    def score(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        bos: bool = False,
        batch_size: int = 8,
    ) -> Scores:
        """-log p of each text under the judge, in nats.

        Args:
            texts: the texts; the judge tokenises them itself, without special tokens.
            max_tokens: only so many tokens of each text are read; None: all.
            bos: put the judge's BOS in front and score every token; otherwise the first token is
                context only, as in the field.
            batch_size: texts per network call.

        Raises:
            ValueError: if this is no causal language model, has no BOS, or a text does not fit.
        """
        if not self.causal:
            raise ValueError(
                f"{self.name} is an encoder and gives no likelihood: choose a causal language "
                "model as the judge"
            )
        if bos and self.tokenizer.bos_token_id is None:
            raise ValueError(
                f"the tokenizer of {self.name} has no BOS: score without it, the first token is "
                "context then"
            )
        front = [self.tokenizer.bos_token_id] if bos else []
        ids, truncated = self.encode(texts, max_tokens, marks=len(front))
        scored = torch.tensor([max(len(front) + len(row) - 1, 0) for row in ids])
        nats = torch.zeros(len(ids), dtype=torch.float64)
        kept = scored.nonzero().flatten().tolist()
        for rows, table, mask in self._batches([front + ids[row] for row in kept], batch_size):
            logits = self.network(input_ids=table, attention_mask=mask.long()).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), table[:, 1:].flatten(), reduction="none"
            )
            of_rows = (loss.double().view(len(rows), -1) * mask[:, 1:]).sum(-1)
            nats[[kept[row] for row in rows]] = of_rows.cpu()
        return Scores(nats, scored, ids, truncated)

    @torch.no_grad()
    def features(self, texts: Sequence[str], max_tokens: int, batch_size: int = 8) -> Tensor:
        """Features [n, D] float32 of each text's first `max_tokens` tokens.

        Of a causal model the last token's hidden state, of an encoder the mean over tokens (with
        its own marks around them).

        Raises:
            ValueError: if a text is empty, or the length out of range.
        """
        marks = 0 if self.causal else self.tokenizer.num_special_tokens_to_add()
        ids, _ = self.encode(texts, max_tokens, marks=marks)
        if empty := sum(not row for row in ids):
            raise ValueError(
                f"{empty} of {len(ids)} texts are empty and have no features: take them out of the "
                "samples knowingly"
            )
        if not self.causal:
            most = max_tokens + marks
            ids = [self.tokenizer.encode(text, truncation=True, max_length=most) for text in texts]
        features: list[Tensor] = [torch.empty(0)] * len(ids)
        for rows, table, mask in self._batches(ids, batch_size):
            output = self.network.base_model(input_ids=table, attention_mask=mask.long())
            hidden = output.last_hidden_state.float()
            if self.causal:
                pooled = hidden[torch.arange(len(rows), device=hidden.device), mask.sum(-1) - 1]
            else:
                pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for row, feature in zip(rows, pooled.cpu(), strict=True):
                features[row] = feature
        return torch.stack(features)


def open_judge(name: str, device: str = "cpu", dtype: str = "float32") -> Judge:
    """Open a judge: an id of the Hugging Face Hub, a folder, or a GGUF file as `folder:file.gguf`
    or `id:file.gguf`.

    Raises:
        ValueError: if it cannot be opened, or the precision is unknown.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    if dtype not in DTYPES:
        raise ValueError(f"unknown precision {dtype!r}: use one of {', '.join(DTYPES)}")
    place = name
    options: dict[str, Any] = {"trust_remote_code": False}
    if name.endswith(".gguf"):
        place, _, file = name.rpartition(":")
        options["gguf_file"] = file
    try:
        config = AutoConfig.from_pretrained(place, **options)
        config._attn_implementation = None  # it may name a kernel on the Hub
        causal = any(one.endswith(CAUSAL) for one in config.architectures or ())
        causal = causal or "gguf_file" in options  # a GGUF file is always one
        auto: Any = AutoModelForCausalLM if causal else AutoModel
        network = auto.from_pretrained(place, config=config, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"judge {name!r} cannot be opened ({reason(error)}): give an id of the Hub that is "
            "cached or reachable, a folder, or a GGUF file as folder:file.gguf (needs "
            "textdiff[eval])"
        ) from None
    return Judge(name, network.to(device, getattr(torch, dtype)).eval(), tokenizer, causal)
