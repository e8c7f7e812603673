"""The corpora of the published language-model tables, by name, each with its source pinned.

Rule of the zero-shot suite (SEDD, HDLM): every row of the data set is a document, detokenised,
ended by EOS; all are joined and cut into blocks of L tokens, no BOS. MDLM and BD3-LM put BOS and
EOS around blocks of L-2. Both drop what does not fill a block, of every thousand rows; here nothing
is dropped: the last block is filled, and the filler is not scored.
"""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from . import detokenisers, readers
from .corpora import SPLITS, Corpus, HubDataset, check_split

DATA = "TEXTDIFF_DATA"
RULE = (
    "EOS ends every document, documents joined, blocks of L, no BOS, the last block filled and its "
    "filler not scored"
)
# the Hub's own conversion of a data set whose original is a script; a branch, not a commit
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class Origin:
    """Where a corpus is: on the Hub, and in a local folder.

    Args:
        hub: the rows on the Hub.
        license: of the text, as far as it is stated.
        detokenise: undoes the tokenisation of a row.
        scored: the split that the zero-shot suite scores.
        local: split -> file below the data folder, `.raw` (a line is a row), `.jsonl` or
            `.parquet`; also as .xz or .gz. A split without one is looked for at NAME/SPLIT.jsonl.
        splits: those that there are.
    """

    hub: HubDataset
    license: str
    detokenise: Callable[[str], str]
    scored: str = "validation"
    local: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = SPLITS


def _wikitext(size: str) -> Origin:
    return Origin(
        HubDataset(
            "Salesforce/wikitext",
            f"wikitext-{size}-raw-v1",
            revision="b08601e04326c79dfdd32d625aee71d232d685c3",
        ),
        "CC BY-SA 3.0 and GFDL",
        detokenisers.wikitext,
        local={
            "train": f"wikitext/wikitext-{size}-raw/wiki.train.raw",
            # the validation and test articles of the two are the same
            "validation": "wikitext/wikitext-2-raw/wiki.valid.raw",
            "test": "wikitext/wikitext-2-raw/wiki.test.raw",
        },
    )


def _papers(name: str) -> Origin:
    return Origin(
        HubDataset(
            "armanc/scientific_papers",
            column="article",
            revision=CONVERTED,
            files=f"{name}/*{{split}}/*.parquet",
        ),
        "not stated; each article under its own",
        detokenisers.scientific_papers,
        local={split: f"scientific_papers/{name}.{split}.first100.jsonl" for split in SPLITS},
    )


BENCHMARKS = {
    "wikitext2": _wikitext("2"),
    "wikitext103": _wikitext("103"),
    "lambada": Origin(
        HubDataset(
            "EleutherAI/lambada_openai", revision=CONVERTED, files="default/{split}/*.parquet"
        ),
        "modified MIT (OpenAI's version)",
        detokenisers.lambada,
        scored="test",
        local={"test": "lambada/lambada_test.jsonl"},
        splits=("test",),
    ),
    "pubmed": _papers("pubmed"),
    "arxiv": _papers("arxiv"),
    "ptb": Origin(
        HubDataset(
            "ptb-text-only/ptb_text_only",
            column="sentence",
            revision=CONVERTED,
            files="penn_treebank/{split}/*.parquet",
        ),
        "LDC user agreement",
        detokenisers.ptb,
    ),
    "lm1b": Origin(
        HubDataset(
            "billion-word-benchmark/lm1b",
            revision="8d52bfd3cc2819fc1166dbb8144c328e2690de3e",  # a commit of the conversion
            files="plain_text/*{split}/*.parquet",
        ),
        "not stated",
        detokenisers.lm1b,
        scored="test",
        splits=("train", "test"),
    ),
    "ag_news": Origin(
        HubDataset("fancyzhx/ag_news", revision="eb185aade064a813bc0b7f42de02595523103ca4"),
        "not stated; for research",
        detokenisers.plain,
        scored="test",
        splits=("train", "test"),
    ),
    "openwebtext": Origin(
        HubDataset(
            "Skylion007/openwebtext",
            "plain_text",
            revision="79d93d786212f7344586290adb811d4ae6a1762c",
            train="train[:-100000]",
            validation="train[-100000:]",
        ),
        "CC0 1.0 (the collection)",
        detokenisers.plain,
        splits=("train", "validation"),
    ),
}


@dataclass(frozen=True)
class Benchmark(Corpus):
    """A published corpus by name: wikitext2, wikitext103, lambada, pubmed, arxiv, ptb, lm1b,
    ag_news or openwebtext.

    It is read from `data_dir` (default: the folder that TEXTDIFF_DATA names), where that has it,
    without any use of the network, else from the Hugging Face Hub. `detokenise` undoes the
    tokenisation of the release, as the published tables do.

    Raises ValueError for an unknown name, or a folder that is not there.
    """

    which: str
    data_dir: str | None = None
    detokenise: bool = True

    def __post_init__(self) -> None:
        if self.which not in BENCHMARKS:
            raise ValueError(
                f"unknown benchmark {self.which!r}: use one of {', '.join(BENCHMARKS)}"
            )
        if self._folder is not None and not self._folder.is_dir():
            raise ValueError(
                f"the data folder {str(self._folder)!r} is not there: mend data_dir (or {DATA}), "
                "or leave it out"
            )

    @property
    def name(self) -> str:
        """Its own name."""
        return self.which

    @property
    def origin(self) -> Origin:
        """Its definition."""
        return BENCHMARKS[self.which]

    def documents(self, split: str) -> Iterator[str]:
        """The rows of a split; ValueError if there is no such split, or it is neither in the folder
        nor to be had from the Hub.
        """
        rows = self._rows(split)
        return map(self.origin.detokenise, rows) if self.detokenise else rows

    def provenance(self, split: str) -> dict[str, Any]:
        """The file or the data set, its revision and checksum, and all rules that the text depends
        on.
        """
        origin = self.origin
        detokeniser = origin.detokenise.__name__ if self.detokenise else "plain"
        rules = {
            "license": origin.license,
            "detokeniser": detokeniser,
            "chunks": RULE,
            "hub": _plain(origin.hub),
        }
        path = self._local(split)
        if path is None:
            return origin.hub.provenance(split) | {"corpus": self.name} | rules
        file = {
            "corpus": self.name,
            "split": split,
            "source": str(path.relative_to(self._folder or Path())),
            "revision": "local file",
            "sha256": readers.checksum([path]),
        }
        return file | rules

    @property
    def _folder(self) -> Path | None:
        name = self.data_dir or os.environ.get(DATA)
        return Path(name).expanduser() if name else None

    def _local(self, split: str) -> Path | None:
        """The file of a split in the data folder, if there is one."""
        check_split(split)
        if split not in self.origin.splits:
            raise ValueError(
                f"{self.name} has no {split} split, only {', '.join(self.origin.splits)}"
            )
        if self._folder is None:
            return None
        path = self._folder / self.origin.local.get(split, f"{self.name}/{split}.jsonl")
        choices = [path.with_name(path.name + packing) for packing in ("", ".xz", ".gz")]
        return next((choice for choice in choices if choice.is_file()), None)

    def _rows(self, split: str) -> Iterator[str]:
        path = self._local(split)
        if path is not None:
            if ".raw" in path.suffixes:
                yield from _lines(path)
            else:
                yield from readers.documents([path], self.origin.hub.column)
            return
        try:
            yield from self.origin.hub.documents(split)
        except ValueError as error:
            wanted = self.origin.local.get(split, f"{self.name}/{split}.jsonl")
            lacks = f"{self._folder} has no {wanted} (.xz, .gz), and " if self._folder else ""
            form = "a line each" if wanted.endswith(".raw") else f"field {self.origin.hub.column!r}"
            raise ValueError(
                f"{lacks}{error}. Without network: put the rows into DATA/{wanted} ({form}) and "
                f"give the folder as data_dir (--data-dir DATA, or {DATA}=DATA)"
            ) from error


def _lines(path: Path) -> Iterator[str]:
    """The rows of a WikiText file as the Hub has them: a line with its line end, nothing for a
    blank one.
    """
    openers: dict[str, Callable[..., TextIO]] = {".xz": lzma.open, ".gz": gzip.open}
    opener = openers.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            yield from (line if line.strip() else "" for line in file)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): check that it is whole and UTF-8"
        ) from error


def _plain(hub: HubDataset) -> dict[str, Any]:
    shown = ("path", "config", "revision", "files", "column")
    fields = {name: value for name, value in asdict(hub).items() if name in shown}
    return fields | {"pinned": hub.revision != CONVERTED}
