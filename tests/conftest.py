"""Set before anything is imported: no network, one thread, no telemetry."""

import logging
import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

collect_ignore_glob = ["fixtures/*"]  # what an earlier version has written: not to be run

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder ../shared/data; a test that asks for it is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def shared_file(shared_data: Path):
    """`shared_file("tinyshakespeare", ...)` is a path in the data folder; the test is skipped where
    it is missing.
    """

    def find(*parts: str) -> Path:
        """The path of a file in the data folder."""
        path = shared_data.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"needs {path}")
        return path

    return find


# Lightning's log handler keeps the captured stderr of the test that imported it; writing to it
# later is no failure.
logging.raiseExceptions = False
