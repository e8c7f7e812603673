"""Can be read at once: how long lines, calls, functions and files are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = 100
POSITIONAL = 5
FUNCTION = 50
FILE = 300

CODE = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("textdiff", "experiments", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


def long_lines(text: str) -> Iterator[str]:
    """Lines over 100 characters."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > LINE:
            yield f"line {number} has {len(line)} characters"


def crowded_calls(tree: ast.AST) -> Iterator[str]:
    """Calls with more than five positional arguments; how many a starred one has is not known."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > POSITIONAL:
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                yield f"line {node.lineno}: {len(node.args)} positional arguments, give keywords"


def long_functions(tree: ast.AST) -> Iterator[str]:
    """Functions over 50 lines; their docstring does not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = len((ast.get_docstring(node, clean=False) or "").splitlines())
            lines = node.end_lineno - node.lineno + 1 - documented
            if lines > FUNCTION:
                yield f"{node.name} has {lines} lines"


def dense(text: str) -> list[str]:
    """Everything in a file of code that cannot be read at once."""
    tree = ast.parse(text)
    faults = [*long_lines(text), *crowded_calls(tree), *long_functions(tree)]
    if (lines := len(text.splitlines())) > FILE:
        faults.append(f"the file has {lines} lines: give what is a second thing its own")
    return faults


@pytest.mark.parametrize("path", CODE)
def test_code_can_be_read_at_once(path):
    faults = dense((ROOT / path).read_text(encoding="utf-8"))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", TESTS)
def test_lines_of_tests(path):
    faults = [*long_lines((ROOT / path).read_text(encoding="utf-8"))]
    assert not faults, "\n".join(faults)


def test_density_is_seen():
    assert dense("x = 1\n") == []
    assert dense("x = f(1, 2, 3, 4, 5)\ny = f(*a, 1, 2, 3, 4, 5)\nz = f(1, b=2, c=3, d=4)\n") == []
    assert dense("#" * 101) == ["line 1 has 101 characters"]
    assert dense("f(1,\n2,3,g(1,2,3,4,5,6),5)") == ["line 2: 6 positional arguments, give keywords"]
    body = "    x = 1\n" * 49
    assert dense("def f():\n" + body) == []
    assert dense("def f():\n    '''a\n    b'''\n" + body) == []
    assert dense("async def f():\n" + body + "    x = 1\n") == ["f has 51 lines"]
    assert len(dense("\n" * 301)) == 1
