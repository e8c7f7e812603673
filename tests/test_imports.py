"""The import graph, read from the source and from a running interpreter."""

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

CORE = ("process", "hyperschedule", "denoiser", "objective", "samplers", "generation")
"""Whole folders that import torch only."""

BELOW = {
    "noise": (),
    "spec": (),
    "files": (),
    "registration": (),
    "process": ("noise",),
    "hyperschedule": (),
    "denoiser": ("hyperschedule",),
    "objective": ("denoiser", "process", "hyperschedule", "noise"),
    "samplers": ("denoiser", "process", "noise"),
    "generation": ("samplers", "denoiser", "process", "hyperschedule", "noise", "spec"),
    "network": ("denoiser", "files"),
    "data": ("noise", "spec", "files"),
    "viewer": ("generation", "hyperschedule"),
    "model": (
        *("generation", "objective", "network", "denoiser", "samplers", "process", "data"),
        *("hyperschedule", "noise", "spec", "files"),
    ),
    "convert": (
        "model",
        "data",
        "network",
        "objective",
        "denoiser",
        "process",
        "hyperschedule",
        "files",
    ),
    "training": (
        *("model", "data", "viewer", "objective", "network", "denoiser", "samplers", "process"),
        *("hyperschedule", "noise", "spec", "files"),
    ),
    "evaluation": (
        *("model", "data", "viewer", "generation", "objective", "network", "denoiser", "samplers"),
        *("process", "hyperschedule", "noise", "spec", "files"),
    ),
    "serving": ("model", "generation"),
    "commands": (
        *("serving", "evaluation", "training", "convert", "viewer", "model", "data"),
        *("objective", "spec", "files"),
    ),
    "estimator": ("objective",),
    "generation_config": ("generation",),
    "__main__": ("commands",),
    "": ("registration",),
}
"""What the modules of each folder may import of the others: arrows run downwards only."""

HEAVY = (
    "lightning",
    "transformers",
    "datasets",
    "tokenizers",
    "safetensors",
    "matplotlib",
    "omegaconf",
    "jsonargparse",
)


def module_name(path: Path) -> str:
    parts = ["textdiff", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere but under TYPE_CHECKING: own ones by full name,
    others by their package.

    What a package's own __getattr__ imports on first use is its users' affair.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            node.body = []
    package = (
        module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    )
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
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
    assert {"textdiff.process.base", "torch"} <= GRAPH["textdiff.process.uniform"]
    assert "textdiff.data.packing" in reached("textdiff.data")
    assert "lightning" in reached("textdiff.data.datamodule")
    assert len(GRAPH) > 90


def members(folder):
    """The modules of a folder."""
    return [name for name in GRAPH if f"{name}.".startswith(f"textdiff.{folder}.")]


@pytest.mark.parametrize("folder", CORE)
def test_torch_only(folder):
    for name in members(folder):
        others = {module for module in reached(name) if not module.startswith("textdiff")}
        assert others - STANDARD <= {"torch"}, name


def test_torch_only_when_it_runs():
    program = f"""
import importlib, json, sys
seen = {{}}
for folder in {CORE!r}:
    importlib.import_module("textdiff." + folder)
    seen[folder] = sorted(sys.modules)
json.dump(seen, sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    for name, modules in json.loads(done.stdout).items():
        assert not set(HEAVY) & set(modules), name


def folder_of(name):
    """The folder of a module, or the module itself where it stands beside the folders."""
    return name.removeprefix("textdiff").removeprefix(".").partition(".")[0]


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_arrows_run_downwards(name):
    own = folder_of(name)
    others = {folder_of(module) for module in GRAPH[name] if module.startswith("textdiff.")}
    assert others - {own} <= set(BELOW[own])
    assert name not in reached(name), "a cycle"


def test_no_folder_is_above_itself():
    for folder in BELOW:
        seen, waiting = set(), list(BELOW[folder])
        while waiting:
            seen.add(below := waiting.pop())
            waiting += set(BELOW[below]) - seen
        assert folder not in seen


def test_lightning_is_where_training_is():
    users = {name for name, modules in GRAPH.items() if "lightning" in modules}
    assert users - set(members("training")) == {"textdiff.data.datamodule"}


def test_the_network_is_never_inside_a_sampler():
    assert not {
        m
        for m in reached("textdiff.samplers")
        if m.startswith(("textdiff.network", "textdiff.generation"))
    }


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by these alone."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py")]
    assert sorted(set(names)) == sorted(names)
