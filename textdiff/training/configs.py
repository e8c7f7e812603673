"""Config files as a command line names them: a path, or the name of one that comes with textdiff.

    textdiff fit --config quick --config tinyshakespeare --config model/gamma --config my.yaml

Class paths in an old file may name modules that have moved; they are replaced before the file is
parsed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..data import Corpus, TokenizerSpec
from ..hyperschedule import Hyperschedule
from ..network import Architecture
from ..objective import Estimator, Objective
from ..process import Process
from ..samplers import Remasking, Sampler, Score, Selection
from ..spec import descendants, public_path

BASES = (
    *(Process, Hyperschedule, Objective, Architecture, Estimator, Corpus, TokenizerSpec),
    *(Sampler, Score, Selection, Remasking),
)
"""What a config file may name by class path."""

OPTION = "--config"
VALUE = re.compile(r"--(?:model|data|trainer)\.")
DOTTED = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\b")


def folder() -> Path:
    """Where the configs are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The configs that come with textdiff: "data/hub", "model/gamma", ..."""
    top = folder()
    found = (path.relative_to(top) for path in top.rglob("*.yaml"))
    return sorted(one.with_suffix("").as_posix() for one in found if one.parts[0] != "serve")


def path_of(name: str) -> Path:
    """The config file that a command line names.

    Args:
        name: a path; or a config that comes with textdiff, without its folder where that is clear.

    Raises:
        ValueError: if there is no such file, or several of that name.
    """
    if Path(name).exists():
        return Path(name)
    fitting = [known for known in names() if name in (known, known.rpartition("/")[2])]
    if len(fitting) > 1:
        raise ValueError(f"there are several configs {name!r}: say {' or '.join(fitting)}")
    if not fitting:
        raise ValueError(
            f"there is no config file {name!r}: give a path, or one of {', '.join(names())}"
        )
    return folder() / f"{fitting[0]}.yaml"


def resolved(arguments: Sequence[str], classes: Sequence[type] = ()) -> list[str]:
    """A command line with every `--config` as a file that can be parsed, or as its text.

    Args:
        arguments: the words of a command line.
        classes: the caller's own classes, which may have moved, too.

    Raises:
        ValueError: as `path_of`.
    """
    _warn_of_overruled(arguments)
    words: list[str] = []
    for word in arguments:
        option, is_joined, value = word.partition("=")
        if option == OPTION and is_joined:
            words += [OPTION, _current(value, classes)]
        elif words and words[-1] == OPTION:
            words.append(_current(word, classes))
        else:
            words.append(word)
    return words


def _warn_of_overruled(arguments: Sequence[str]) -> None:
    """Warn of options in front of a `--config`, which overrules them."""
    configs = [n for n, word in enumerate(arguments) if word.partition("=")[0] == OPTION]
    early = [word for word in arguments[: max(configs, default=0)] if VALUE.match(word)]
    if early:
        warnings.warn(
            f"{early[0].partition('=')[0]} stands in front of a --config, whose values are taken "
            "where both set one: put options behind the configs",
            stacklevel=3,
        )


def _current(given: str, classes: Sequence[type]) -> str:
    """The path of a config; its text, if class paths in it had to be replaced."""
    if "\n" in given or given.lstrip().startswith("{"):  # a config in place of a file
        return replaced(given, classes)
    path = path_of(given)
    if not path.is_file():
        return str(path)
    text = path.read_text(encoding="utf-8")
    current = replaced(text, classes)
    return str(path) if current == text else current


def replaced(text: str, classes: Sequence[type] = ()) -> str:
    """A config with the class paths of today: those that no longer import are found by name."""
    ours = {cls.__name__: cls for base in BASES for cls in descendants(base)}
    theirs = {cls.__name__: cls for cls in classes if issubclass(cls, BASES)}

    def today(match: re.Match[str]) -> str:
        path = match[0]
        known = ours if path.startswith("textdiff.") else theirs
        cls = known.get(path.rpartition(".")[2])
        return path if cls is None or _imports(path) else public_path(cls)

    return DOTTED.sub(today, text)


def imported(path: str) -> Any:
    """The class at a class path.

    Raises:
        ImportError, AttributeError: if there is none.
    """
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _imports(path: str) -> bool:
    try:
        imported(path)
    except (ImportError, AttributeError):
        return False
    return True
