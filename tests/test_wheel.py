"""What is installed is what was tested: sdist and wheel are built, and the wheel is used outside
the repository, where only its dependencies are.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from tiny import CONFIGS, LINE, ROOT, SHAPE, words

MEGABYTE = 1 << 20


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it does not see the repository unless it is in it."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which hatchling can be imported."""
    if importlib.util.find_spec("hatchling") is not None:
        return {}
    target = tmp_path_factory.mktemp("hatchling")
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", target, "hatchling>=1.25"]
    if subprocess.run(install, capture_output=True).returncode != 0:
        pytest.skip("needs hatchling: pip install -e '.[dev]', or a package index")
    return {"PYTHONPATH": str(target)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, backend: dict[str, str]) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    run(*build, "-t", "sdist", cwd=ROOT, **backend)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    run(*build, "-t", "wheel", cwd=folder / source.name.removesuffix(".tar.gz"), **backend)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, built: tuple[Path, Path]) -> Path:
    """The `bin` of a fresh environment with the wheel; dependencies are those of this one.

    A .pth file adds this environment's folder, but not what the .pth files in it add: an editable
    textdiff is out of sight.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    run(*pip, "--no-deps", "--no-index", "--ignore-installed", built[1], cwd=folder)
    return python.parent


def test_the_source_distribution_is_small(built):
    source, _ = built
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert {"textdiff", "configs", "README.md", "LICENSE", "CITATION.cff"} <= tops
    assert not {"experiments", "tests", "benchmarks", "runs"} & tops
    assert not [name for name in names if name.endswith((".safetensors", ".ckpt", ".pt"))]
    assert source.stat().st_size < MEGABYTE


def test_the_wheel_holds_the_package_with_its_data(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    package = [path for path in (ROOT / "textdiff").rglob("*") if "__pycache__" not in path.parts]
    files = {path.relative_to(ROOT).as_posix() for path in package if path.is_file()}
    configs = {f"textdiff/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")}
    assert {name for name in names if ".dist-info/" not in name} >= files | configs
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"textdiff"}
    assert "textdiff/py.typed" in files


def test_the_wheel_is_used_outside_the_repository(installed, tmp_path):
    """fit by the names of configs, sample, evaluate: as a user would, on a text of her own."""
    (tmp_path / "my.txt").write_text(LINE * 12)
    where = run(installed / "python", "-c", "import textdiff as t; print(t)", cwd=tmp_path)
    assert str(installed.parent) in where
    assert run(installed / "textdiff", "--version", cwd=tmp_path).startswith("textdiff 0.")
    names = ("quick", "text_files", "gamma")
    fit = ["fit", *(f"--config={name}" for name in names), *words(SHAPE, "model.network.")]
    trainer = {"default_root_dir": "run", "max_steps": 2, "limit_val_batches": 1}
    trainer |= {"accelerator": "cpu", "val_check_interval": 1}
    fit += words(trainer | {"enable_progress_bar": "false"}, "trainer.")
    fit += ["--model.warmup=1", "--data.length=16", "--data.batch_size=4"]
    fit += ["--data.tokenizer=textdiff.data.Characters"]
    sample = ["sample", "run", "--prompt", "the quick", "--output", "drawn.json"]
    evaluate = ["evaluate", "perplexity", "run", "--limit", "2", "--draws", "2"]
    program = "import sys, json; from textdiff.commands.cli import main\n"
    program += "for words in json.loads(sys.argv[1]): main(words)"
    every = json.dumps([fit, sample, evaluate])
    told = run(installed / "python", "-c", program, every, cwd=tmp_path)
    assert "--- sample 0\nthe quick" in told and "NELBO" in told
    assert json.loads((tmp_path / "drawn.json").read_text())["git"] is None
