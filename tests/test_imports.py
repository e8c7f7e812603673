"""The import graph of design.md, read from the source and from a running interpreter; sizes of files and functions."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import textdiff

PACKAGE = Path(textdiff.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
STANDARD = set(sys.stdlib_module_names)

TORCH_ONLY = ("family", "process", "hyperschedule", "divergence", "objective", "noise", "prediction", "samplers", "attention")
TOP = {"textdiff.training", "textdiff.callbacks", "textdiff.lightning_cli", "textdiff.cli"} | {
    f"textdiff.commands.{path.stem}" for path in (PACKAGE / "commands").glob("[!_]*.py")
}
HEAVY = ("lightning", "transformers", "datasets", "tokenizers", "safetensors", "matplotlib", "omegaconf", "jsonargparse")


def module_name(path: Path) -> str:
    parts = ["textdiff", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere but under TYPE_CHECKING: own ones by full name, others by their package.

    What a package's own __getattr__ imports on first use is its users' affair.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            node.body = []
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            inside = {f"{module}.{alias.name}" for alias in node.names}
            found |= inside if inside <= GRAPH_NAMES else {module, *inside}
    own = {name for name in found if name in GRAPH_NAMES}
    return own | {name.split(".")[0] for name in found if not name.startswith("textdiff")}


GRAPH_NAMES = {module_name(path) for path in FILES}
GRAPH = {module_name(path): imports(path) for path in FILES}


def reached(name: str) -> set[str]:
    """Everything a module imports, directly or through other modules of textdiff."""
    found, waiting = set(), [name]
    while waiting:
        for imported in GRAPH.get(waiting.pop(), set()) - found:
            found.add(imported)
            waiting.append(imported)
    return found


def test_the_graph_is_read():
    assert {"textdiff.family", "torch"} <= GRAPH["textdiff.process"]
    assert "textdiff.data.packing" in reached("textdiff.data") and "lightning" in reached("textdiff.data.datamodule")
    assert TOP <= set(GRAPH) and len(GRAPH) > 30


@pytest.mark.parametrize("name", TORCH_ONLY)
def test_torch_only(name):
    others = {module for module in reached(f"textdiff.{name}") if not module.startswith("textdiff")}
    assert others - STANDARD <= {"torch"} | ({"flash_attn"} if name == "attention" else set())  # imported when it is first used


def test_torch_only_when_it_runs():
    program = f"""
import importlib, json, sys
seen = {{}}
for name in {TORCH_ONLY!r}:
    importlib.import_module("textdiff." + name)
    seen[name] = sorted(sys.modules)
json.dump(seen, sys.stdout)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for name, modules in json.loads(done.stdout).items():
        assert not set(HEAVY) & set(modules), name
        assert not TOP & set(modules), name


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_dependencies_point_downwards(name):
    # lightning_cli wires all; commands and the CLI stand beside it. Nothing below knows them.
    if name not in TOP | {"textdiff.__main__"}:
        assert not reached(name) & TOP
    assert name not in reached(name), "a cycle"


def test_lightning_is_where_training_is():
    users = {name for name, modules in GRAPH.items() if "lightning" in modules}
    assert users == {"textdiff.training", "textdiff.callbacks", "textdiff.lightning_cli", "textdiff.data.datamodule"}


def test_the_network_is_never_inside_a_sampler():
    assert not {m for m in reached("textdiff.samplers") if m.startswith(("textdiff.network", "textdiff.generation"))}


LONG: dict[str, int] = {}  # a longer file wants a reason


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONG.get(path.name, 300)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert lines <= 50, node.name
