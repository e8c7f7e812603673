"""Features that are kept between calls: computed once, and nothing in their files is run."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from textdiff.evaluation.mauve_score import features


class Judge:
    """Features that are the lengths of the texts; counts how often it is asked."""

    sha256 = hashlib.sha256(b"judge").hexdigest()
    network = SimpleNamespace(dtype=torch.float32)
    asked = 0

    def features(self, texts, max_tokens, batch_size):
        self.asked += 1
        return torch.tensor([[float(len(text))] for text in texts])


class Code:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_features_are_computed_once(tmp_path):
    judge = Judge()
    first = features(judge, ["a", "bcd"], 8, tmp_path)
    assert torch.equal(features(judge, ["a", "bcd"], 8, tmp_path), first) and judge.asked == 1
    features(judge, ["a"], 8, tmp_path)
    features(judge, ["a", "bcd"], 9, tmp_path)
    assert judge.asked == 3 and len(list(tmp_path.iterdir())) == 3


def test_code_in_the_cache_is_not_run(tmp_path):
    judge, trap = Judge(), tmp_path / "trap"
    cache = tmp_path / "cache"
    features(judge, ["a"], 8, cache)
    (place,) = cache.iterdir()
    torch.save({"features": Code(trap)}, place)
    with pytest.raises(ValueError, match="are not opened: remove it"):
        features(judge, ["a"], 8, cache)
    assert not trap.exists()
    torch.load(place, weights_only=False)  # it would have been
    assert trap.exists()
