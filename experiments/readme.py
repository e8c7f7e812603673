"""Write the tables of the README from the JSONs of the experiments: `python experiments/readme.py`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def quickstart(result: dict) -> str:
    """The quickstart's own numbers."""
    lines = [
        f"`make quickstart` gave this on {result['threads']} CPU thread{'s' * (result['threads'] > 1)} in {result['total_seconds']:.0f} s "
        f"({result['bounds'][0]['tokens']:,} validation tokens, characters; unigram entropy of the same tokens "
        f"{result['unigram_entropy']:.3f} nats, log N {result['log_N']:.3f}):",
        "",
        "| bound | nats/token | ± s.e. | bits/token | perplexity | estimator |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {b['name']} | {b['nats']:.3f} | {b['standard_error']:.3f} | {b['bits']:.3f} | {b['perplexity']:.2f} | {b['estimator']} |"
        for b in result["bounds"]
    ]
    return "\n".join(lines)


SECTIONS = {"quickstart": ("quickstart/result.json", quickstart)}


def render(readme: str) -> str:
    """The README with every section between `<!-- name -->` and `<!-- /name -->` made anew from its JSON."""
    for name, (file, make) in SECTIONS.items():
        head, rest = readme.split(f"<!-- {name} -->\n")
        _, tail = rest.split(f"<!-- /{name} -->")
        table = make(json.loads((ROOT / "experiments" / file).read_text(encoding="utf-8")))
        readme = f"{head}<!-- {name} -->\n{table}\n<!-- /{name} -->{tail}"
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
