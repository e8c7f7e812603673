"""Frozen dataclasses as plain values and back: {class_path, init_args}, the same form that config
files use.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def describe(value: Any) -> Any:
    """A frozen dataclass as {"class_path": ..., "init_args": ...} of plain values; others as is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init]
        arguments = {name: describe(getattr(value, name)) for name in fields}
        return {"class_path": public_path(type(value)), "init_args": arguments}
    return list(value) if isinstance(value, tuple) else value


def public_path(cls: type) -> str:
    """The shortest path by which a class can be imported: `textdiff.samplers.Ancestral`."""
    package, _, module = cls.__module__.rpartition(".")
    shown = importlib.import_module(package or module)
    home = package if getattr(shown, cls.__name__, None) is cls else cls.__module__
    return f"{home}.{cls.__qualname__}"


def _find(class_path: str, base: type[T]) -> type[T]:
    """The class of this name below `base`; files may have been written when it stood elsewhere."""
    words = class_path.split(".")
    if words[0] != "textdiff":
        raise ValueError(
            f"{class_path!r} is not a class of textdiff; code named in a file is never run: make "
            "the object in Python and pass it"
        )
    if len(words) > 2 and importlib.util.find_spec(f"textdiff.{words[1]}") is not None:
        importlib.import_module(f"textdiff.{words[1]}")
    found = [cls for cls in descendants(base) if cls.__name__ == words[-1] and _is_ours(cls)]
    if not found:
        known = ", ".join(names(base))
        raise ValueError(f"{class_path!r} is not a {base.__name__}; known: {known}")
    return found[0]


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("textdiff.")


def build(value: Any, base: type[T]) -> T:
    """Make the object that `describe` described; an object of `base` passes through.

    Raises:
        ValueError: if the class is unknown, no subclass of `base`, outside textdiff, or takes other
            arguments.
    """
    if isinstance(value, base):
        return value
    if not (isinstance(value, dict) and isinstance(value.get("class_path"), str)):
        raise ValueError(f"expected {{class_path, init_args}} of a {base.__name__}, got {value!r}")
    cls, arguments = _find(value["class_path"], base), value.get("init_args") or {}
    fields = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    if unknown := sorted(set(arguments) - fields):
        raise ValueError(
            f"{cls.__name__} takes no argument {', '.join(unknown)}; it takes {', '.join(sorted(fields))}"
        )
    try:
        return cls(**{key: _field(cls, key, item) for key, item in arguments.items()})
    except (TypeError, ValueError) as error:  # a missing argument, a value out of range
        raise ValueError(f"{cls.__name__}: {error}") from None


def _field(cls: type, name: str, value: Any) -> Any:
    """The value of a field: an object that is described is built as the field's type, a list is a
    tuple.
    """
    if isinstance(value, dict) and "class_path" in value:
        return build(value, get_type_hints(cls)[name])
    return tuple(value) if isinstance(value, list) else value


def descendants(base: type[T]) -> list[type[T]]:
    """All loaded subclasses of `base`."""
    return [d for c in base.__subclasses__() for d in (c, *descendants(c))]


def names(base: type) -> list[str]:
    """The names that `parse` knows for `base`."""
    return sorted(
        {
            c.__name__
            for c in descendants(base)
            if c.__module__.startswith("textdiff.") and not c.__name__.startswith("_")
        }
    )


def parse(text: str, base: type[T]) -> T:
    """An object from the command line: `Flat(64)`, `ACS(eta=0.01)`, `Ancestral`; names are those of
    `base`'s subclasses.

    Arguments are literals, or objects in the same form: `Confidence(score=Margin(),
    select=Threshold(0.9))`.

    Raises:
        ValueError: if the text is not such a call, or a name is unknown.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"cannot read {text!r}: {_hint(base)}") from None
    return _read(node, base)


def _hint(base: type) -> str:
    return f"expected a {base.__name__} such as 'Name' or 'Name(1, option=2)', one of: {', '.join(names(base))}"


def _read(node: ast.expr, base: type[T]) -> T:
    call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name not in names(base):
        raise ValueError(
            f"unknown {base.__name__.lower()} {name or ast.unparse(node)!r}: {_hint(base)}"
        )
    cls = next(c for c in descendants(base) if c.__name__ == name)
    order = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    if len(call.args) > len(order):
        raise ValueError(
            f"{name} takes at most {len(order)} arguments ({', '.join(order)}), got {len(call.args)}"
        )
    nodes = {
        **dict(zip(order, call.args, strict=False)),
        **{item.arg or "": item.value for item in call.keywords},
    }
    values = {key: _argument(cls, key, value, base) for key, value in nodes.items()}
    return build({"class_path": public_path(cls), "init_args": values}, base)


def _argument(cls: type, name: str, node: ast.expr, base: type) -> Any:
    hint = get_type_hints(cls).get(name)
    if dataclasses.is_dataclass(hint):
        return _read(node, hint)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(
            f"cannot read {ast.unparse(node)!r} in {cls.__name__}: {_hint(base)}"
        ) from None
