"""Names of results: one for each text and way of measuring, and none says where a text is."""

import re

import pytest

from textdiff.files import LONGEST, slug

PARTS = (
    ("perplexity", "x.txt"),
    ("perplexity", "a/x.txt"),
    ("perplexity", "/home/me/secret/x.txt"),
    ("perplexity", "C:\\me\\x.txt"),
    ("perplexity", "HubDataset('me/x')"),
    ("perplexity", "x.txt", "Block(16, 4)"),
    ("perplexity", "x.txt", "Block(16, 8)"),
    ("harness", *(f"task_{number}" for number in range(100))),
    ("harness", *(f"task_{number}" for number in range(101))),
    ("quality", "日本語" * 100),
    ("quality", "../../x"),
    ("quality", "two\nlines"),
)


@pytest.mark.parametrize("parts", PARTS)
def test_a_result_has_a_name_that_every_disk_takes(parts):
    name = slug(*parts)
    assert name.startswith(parts[0]) and len(name.encode()) <= LONGEST
    assert re.fullmatch(r"[\w.=-]+", name) and not name.startswith(".")


def test_names_differ_and_do_not_say_where_a_text_is():
    names = [slug(*parts) for parts in PARTS]
    assert len(set(names)) == len(names)
    assert not any("home" in name or "secret" in name or "me_" in name for name in names)
