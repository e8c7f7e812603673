"""What of a model folder is for others: a list of files and of fields; all else stays at home."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import whole, write_json

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
MODEL = ("model.safetensors", "config.json", "generation_config.json", *TOKENIZER)
"""Files that `save` writes,"""
PAGES = ("README.md", "LICENSE", "loss.png", "hyperschedule.png")
BESIDE = ("reference.json", *PAGES, "results/**/*.json")
"""and others that travel. config.yaml is not among them: it is of this machine's folders."""

FIELDS = (
    *("bounds", "data", "until_se", "world_size", "quality", "mauve", "human", "reference"),
    *("harness", "tasks", "standard_error_of_a_request", "likelihood", "limit", "likelihoods"),
    *("correct", "passages", "tokens", "accuracy", "standard_error", "fill", "schedule"),
    *("nfe_of_samples", "settings", "generation_config", "evaluated", "seconds", "draws"),
    *("run", "weights_sha256", "config_sha256", "process", "hyperschedule", "prediction"),
    *("dtype", "device", "seed", "textdiff", "git", "python", "versions", "when"),
)
"""Fields of results that travel: numbers and where they come from, no texts and no prompts."""


def files(folder: Path) -> Iterator[tuple[Path, Path]]:
    """What travels, hidden files excepted: each file, and its path in the folder."""
    for root, patterns in ((whole(folder), MODEL), (folder, BESIDE)):
        for path in [path for pattern in patterns for path in sorted(root.glob(pattern))]:
            inside = path.relative_to(root)
            hidden = any(part.startswith(".") for part in inside.parts)
            if path.is_file() and not hidden:
                yield path, inside


def copy(source: Path, folder: Path) -> None:
    """Copy what travels into a folder; results and config.json without what is of this machine."""
    for here, inside in files(source):
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        if inside.parts[0] == "results":
            _copy_result(here, path)
        elif inside.name == "config.json":
            config = json.loads(here.read_text(encoding="utf-8"))
            config["textdiff"]["data"] = at_home(config["textdiff"].get("data", {}))
            write_json(path, config)
        else:
            shutil.copyfile(here, path)


def _copy_result(source: Path, path: Path) -> None:
    """The listed fields of a result; what does not say of which weights it is stays at home."""
    try:
        result = json.loads(source.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return
    if isinstance(result, dict) and "weights_sha256" in result:
        write_json(path, {name: at_home(result[name]) for name in FIELDS if name in result})


def at_home(value: Any) -> Any:
    """Plain values with every path cut to its last part; ids of the Hub, classes and URLs stay.

    >>> at_home({"train": "/home/me/secret/a.txt", "hub": "me/corpus", "files": ["data/a.txt"]})
    {'train': 'a.txt', 'hub': 'me/corpus', 'files': ['a.txt']}
    """
    if isinstance(value, dict):
        return {name: at_home(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [at_home(inside) for inside in value]
    if isinstance(value, str) and _is_path(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _is_path(text: str) -> bool:
    if re.match(r"[/~\\]|\.\.?[/\\]|[A-Za-z]:[/\\]|file:", text):
        return True
    if "://" in text or not re.search(r"[/\\]", text) or "\n" in text:
        return False
    ending = re.search(r"\.(txt|jsonl?|csv|tsv|parquet|md|gz|xz|bz2|zst|ckpt|safetensors)$", text)
    return bool(ending) or Path(text).exists()
