"""Objects as plain values and back: {class_path, init_args}, the form that config files use, and
as text, the form of the command line.

>>> from textdiff.hyperschedule import Flat, Hyperschedule
>>> describe(Flat(3))
{'class_path': 'textdiff.hyperschedule.Flat', 'init_args': {'levels': 3}}
>>> build(describe(Flat(3)), Hyperschedule) == parse("Flat(3)", Hyperschedule) == Flat(3)
True

An object is a frozen dataclass below one of the bases (`Process`, `Hyperschedule`, `Sampler`, ...).
Classes of textdiff are known; others only if the caller passes them in `classes`: a file names
objects, and never decides which code is run.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")
Classes = Sequence[type]

TOO_DEEP = (RecursionError, MemoryError)
"""What Python's parser raises for text that is nested too deep."""

REMEDY = (
    "code that a file names is never run: pass the class yourself, as classes=[{name}] in Python "
    "or with --import MODULE on the command line"
)


def describe(value: Any) -> Any:
    """A frozen dataclass as {"class_path": ..., "init_args": ...} of plain values; others as is.

    Raises:
        ValueError: if the value is an object that is no dataclass.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        arguments = {name: describe(getattr(value, name)) for name in _arguments(type(value))}
        return {"class_path": public_path(type(value)), "init_args": arguments}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str | dict):
        return value
    raise ValueError(
        f"{value!r} cannot be written down: make {type(value).__name__} a frozen dataclass"
    )


def public_path(cls: type) -> str:
    """The shortest path by which a class can be imported: `textdiff.samplers.Ancestral`."""
    package = cls.__module__.rpartition(".")[0]
    is_shown = getattr(sys.modules.get(package), cls.__name__, None) is cls
    return f"{package if is_shown else cls.__module__}.{cls.__qualname__}"


def build(value: Any, base: type[T], classes: Classes = ()) -> T:
    """Make the object that `describe` described; an object of `base` passes through.

    A class of textdiff is found by its name among the subclasses of `base`, whatever module the
    path names: files stay readable when a module moves.

    Args:
        value: {class_path, init_args}, or an object.
        base: what the object must be.
        classes: the caller's own classes that may be built, beside those of textdiff.

    Raises:
        ValueError: if the class is unknown, no subclass of `base`, somebody's but not in `classes`,
            or takes other arguments.
    """
    if isinstance(value, base):
        return value
    if not (isinstance(value, dict) and isinstance(value.get("class_path"), str)):
        raise ValueError(f"expected {{class_path, init_args}} of a {base.__name__}, got {value!r}")
    cls = _class_at(value["class_path"], base, classes)
    return _make(cls, value.get("init_args") or {}, classes)


def parse(text: str, base: type[T], classes: Classes = ()) -> T:
    """An object from the command line: `Flat(64)`, `ACS(eta=0.01)`, `Ancestral`; names are those of
    `base`'s subclasses.

    Arguments are literals, or objects in the same form: `Confidence(score=Margin(),
    select=Threshold(0.9))`.

    Raises:
        ValueError: if the text is not such a call, or a name is unknown.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, *TOO_DEEP):
        raise ValueError(f"cannot read {text!r}: {_expected(base, classes)}") from None
    return _from_node(node, base, classes)


def names(base: type, classes: Classes = ()) -> list[str]:
    """The names that `parse` knows for `base`."""
    known: list[type] = _named(base, classes)
    return sorted({cls.__name__ for cls in known})


def descendants(base: type[T]) -> list[type[T]]:
    """All loaded subclasses of `base`."""
    return [d for c in base.__subclasses__() for d in (c, *descendants(c))]


def classes_of(*values: Any) -> list[type]:
    """The classes that objects are made of, those of their arguments too."""
    classes: list[type] = []
    for value in values:
        if isinstance(value, tuple):
            classes += classes_of(*value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            classes.append(type(value))
            classes += classes_of(*(getattr(value, name) for name in _arguments(type(value))))
    return classes


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("textdiff.")


def _ours(base: type[T]) -> list[type[T]]:
    """The classes of textdiff below `base` that can be made."""
    return [cls for cls in descendants(base) if _is_ours(cls) and not inspect.isabstract(cls)]


def _theirs(base: type[T], classes: Classes) -> list[type[T]]:
    """The caller's own classes below `base`, each once."""
    fitting = (cls for cls in classes if issubclass(cls, base) and not _is_ours(cls))
    return list(dict.fromkeys(fitting))


def _named(base: type[T], classes: Classes) -> list[type[T]]:
    """The classes below `base` that the command line may name."""
    ours = [cls for cls in _ours(base) if not cls.__name__.startswith("_")]
    return [*ours, *_theirs(base, classes)]


def _only(name: str, fitting: list[type[T]], base: type) -> type[T] | None:
    """The class of a name, or None; a ValueError if there are two."""
    named = [cls for cls in fitting if cls.__name__ == name]
    if len(named) > 1:
        both = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in named)
        raise ValueError(f"{name!r} is the name of several {base.__name__}: {both}; rename one")
    return named[0] if named else None


def _class_at(class_path: str, base: type[T], classes: Classes) -> type[T]:
    """The class that a file names, below `base`."""
    words = class_path.split(".")
    is_ours = words[0] == "textdiff"
    if is_ours and len(words) > 2 and importlib.util.find_spec(f"textdiff.{words[1]}") is not None:
        importlib.import_module(f"textdiff.{words[1]}")
    fitting = _ours(base) if is_ours else _theirs(base, classes)
    cls = _only(words[-1], fitting, base)
    if cls is not None:
        return cls
    if is_ours:
        known = ", ".join(names(base))
        raise ValueError(f"{class_path!r} is not a {base.__name__}; known: {known}")
    raise ValueError(f"{class_path!r} is not a class of textdiff; {REMEDY.format(name=words[-1])}")


def _arguments(cls: type) -> list[str]:
    """The names of a class's arguments, in order."""
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"{cls.__module__}.{cls.__qualname__} must be a frozen dataclass")
    return [field.name for field in dataclasses.fields(cls) if field.init]


def _make(cls: type[T], arguments: dict[str, Any], classes: Classes) -> T:
    """The object of a class with plain arguments."""
    known = _arguments(cls)
    if unknown := sorted(set(arguments) - set(known)):
        raise ValueError(
            f"{cls.__name__} takes no argument {', '.join(unknown)}; "
            f"it takes {', '.join(sorted(known))}"
        )
    try:
        return cls(**{key: _field(cls, key, item, classes) for key, item in arguments.items()})
    except (TypeError, ValueError, ArithmeticError) as error:  # one is missing, or out of range
        raise ValueError(f"{cls.__name__}: {error}") from None


def _field(cls: type, name: str, value: Any, classes: Classes) -> Any:
    """The value of a field: an object that is described is built as the field's type, a list is a
    tuple.
    """
    hint = get_type_hints(cls)[name]
    if isinstance(value, dict) and "class_path" in value:
        return build(value, hint, classes)
    if not isinstance(value, list):
        return value
    of = _of(hint)
    objects = [isinstance(one, dict) and "class_path" in one for one in value]
    rows = zip(value, objects, strict=True)
    return tuple(build(one, of, classes) if is_object else one for one, is_object in rows)


def _of(hint: Any) -> type:
    """The type of the entries of a tuple."""
    return next((one for one in get_args(hint) if isinstance(one, type)), object)


def _expected(base: type, classes: Classes) -> str:
    return (
        f"expected a {base.__name__} such as 'Name' or 'Name(1, option=2)', "
        f"one of: {', '.join(names(base, classes))}"
    )


def _from_node(node: ast.expr, base: type[T], classes: Classes) -> T:
    """The object that a name or a call stands for."""
    call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    cls = _only(name, _named(base, classes), base)
    if cls is None:
        shown = name or ast.unparse(node)
        raise ValueError(f"unknown {base.__name__.lower()} {shown!r}: {_expected(base, classes)}")
    order = _arguments(cls)
    if len(call.args) > len(order):
        raise ValueError(
            f"{name} takes at most {len(order)} arguments ({', '.join(order)}), "
            f"got {len(call.args)}"
        )
    nodes = dict(zip(order, call.args, strict=False))
    nodes |= {item.arg or "": item.value for item in call.keywords}
    values = {key: _argument(cls, key, item, base, classes=classes) for key, item in nodes.items()}
    return _make(cls, values, classes)


def _argument(cls: type, name: str, node: ast.expr, base: type, *, classes: Classes) -> Any:
    """An argument of a call: an object where the field is one, else a literal."""
    hint = get_type_hints(cls).get(name)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _from_node(node, hint, classes)
    if isinstance(node, ast.Tuple | ast.List) and any(isinstance(e, ast.Call) for e in node.elts):
        return tuple(_from_node(entry, _of(hint), classes) for entry in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, *TOO_DEEP):
        raise ValueError(
            f"cannot read {ast.unparse(node)!r} in {cls.__name__}: {_expected(base, classes)}"
        ) from None
