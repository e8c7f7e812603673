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
from typing import Any

from . import detokenisers, readers
from .corpora import SPLITS, Corpus, HubDataset, check_split

DATA = "TEXTDIFF_DATA"
RULE = "EOS ends every document, documents joined, blocks of L, no BOS, the last block filled and its filler not scored"
# the Hub's own conversion of a data set whose original is a script; a branch, not a commit
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class Source:
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


def _wikitext(size: str) -> Source:
    files = {
        split: f"wikitext/wikitext-2-raw/wiki.{short}.raw"
        for split, short in (("validation", "valid"), ("test", "test"))
    }
    return Source(
        HubDataset(
            "Salesforce/wikitext",
            f"wikitext-{size}-raw-v1",
            revision="b08601e04326c79dfdd32d625aee71d232d685c3",
        ),
        "CC BY-SA 3.0 and GFDL",
        detokenisers.wikitext,
        # The validation and test articles of the two are the same.
        local=files | {"train": f"wikitext/wikitext-{size}-raw/wiki.train.raw"},
    )


def _papers(name: str) -> Source:
    return Source(
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


SOURCES = {
    "wikitext2": _wikitext("2"),
    "wikitext103": _wikitext("103"),
    "lambada": Source(
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
    "ptb": Source(
        HubDataset(
            "ptb-text-only/ptb_text_only",
            column="sentence",
            revision=CONVERTED,
            files="penn_treebank/{split}/*.parquet",
        ),
        "LDC user agreement",
        detokenisers.ptb,
    ),
    "lm1b": Source(
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
    "ag_news": Source(
        HubDataset("fancyzhx/ag_news", revision="eb185aade064a813bc0b7f42de02595523103ca4"),
        "not stated; for research",
        detokenisers.plain,
        scored="test",
        splits=("train", "test"),
    ),
    "openwebtext": Source(
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
        if self.which not in SOURCES:
            raise ValueError(f"unknown benchmark {self.which!r}: use one of {', '.join(SOURCES)}")
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
    def source(self) -> Source:
        """Its definition."""
        return SOURCES[self.which]

    def documents(self, split: str) -> Iterator[str]:
        """The rows of a split; ValueError if there is no such split, or it is neither in the folder
        nor to be had from the Hub.
        """
        rows = self._rows(split)
        return map(self.source.detokenise, rows) if self.detokenise else rows

    def provenance(self, split: str) -> dict[str, Any]:
        """The file or the data set, its revision and checksum, and all rules that the text depends
        on.
        """
        source = self.source
        detokeniser = source.detokenise.__name__ if self.detokenise else "plain"
        rules = {
            "license": source.license,
            "detokeniser": detokeniser,
            "chunks": RULE,
            "hub": _plain(source.hub),
        }
        path = self._local(split)
        if path is None:
            return source.hub.provenance(split) | {"corpus": self.name} | rules
        found = {
            "corpus": self.name,
            "split": split,
            "source": str(path.relative_to(self._folder or Path())),
            "revision": "local file",
        }
        return found | {"sha256": readers.checksum([path])} | rules

    @property
    def _folder(self) -> Path | None:
        named = self.data_dir or os.environ.get(DATA)
        return Path(named).expanduser() if named else None

    def _local(self, split: str) -> Path | None:
        """The file of a split in the data folder, if there is one."""
        check_split(split)
        if split not in self.source.splits:
            raise ValueError(
                f"{self.name} has no {split} split, only {', '.join(self.source.splits)}"
            )
        if self._folder is None:
            return None
        path = self._folder / self.source.local.get(split, f"{self.name}/{split}.jsonl")
        choices = [path.with_name(path.name + packing) for packing in ("", ".xz", ".gz")]
        return next((choice for choice in choices if choice.is_file()), None)

    def _rows(self, split: str) -> Iterator[str]:
        path = self._local(split)
        if path is not None:
            raw = ".raw" in path.suffixes
            yield from _lines(path) if raw else readers.read(path, self.source.hub.column)
            return
        try:
            yield from self.source.hub.documents(split)
        except ValueError as error:
            wanted = self.source.local.get(split, f"{self.name}/{split}.jsonl")
            lacks = f"{self._folder} has no {wanted} (.xz, .gz), and " if self._folder else ""
            form = "a line each" if wanted.endswith(".raw") else f"field {self.source.hub.column!r}"
            raise ValueError(
                f"{lacks}{error}. Without network: put the rows into DATA/{wanted} ({form}) and "
                "give the folder as data_dir "
                f"(--data-dir DATA, or {DATA}=DATA)"
            ) from error


def _lines(path: Path) -> Iterator[str]:
    """The rows of a WikiText file as the Hub has them: a line with its line end, nothing for a
    blank one.
    """
    try:
        with {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)(
            path, "rt", encoding="utf-8", newline="\n"
        ) as file:
            yield from (line if line.strip() else "" for line in file)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): check that it is whole and UTF-8"
        ) from error


def _plain(hub: HubDataset) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in asdict(hub).items()
        if name in ("path", "config", "revision", "files", "column")
    }
    kept["pinned"] = hub.revision != CONVERTED
    return kept
