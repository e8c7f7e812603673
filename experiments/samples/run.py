"""Samples of the six models under every schedule and sampler that fits them: `python
experiments/samples/run.py`.

Writes result.json (texts with their settings), samples.md to read, and to runs/samples one page per
model that shows how one sample of each case came about. What was drawn already is kept; delete
result.json to draw anew.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import textdiff
from textdiff.evaluation.provenance import provenance
from textdiff.files import write_json, write_text
from textdiff.hyperschedule import Hyperschedule
from textdiff.samplers import Sampler
from textdiff.spec import parse
from textdiff.viewer import page

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "six_models" / "models"
PAGES = Path("runs/samples")
MASKED = (
    "Ancestral",
    "FirstHitting",
    "ReMDM(Rescaled(0.1))",
    "Confidence(Probability(), Count(2))",
    "Confidence(Entropy(), EntropyBound(1.0))",
)
HYBRID = ("Ancestral", "ACS(rate=4)", "InformedACS(rate=4)", "PredictorCorrector(corrections=1)")
CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "ar": {"QuenchedAR": ("Ancestral",)},
    "mdlm": {"Flat(64)": MASKED},
    "gamma": {"Flat(64)": HYBRID},
    "epsilon": {"Flat(64)": (*HYBRID, "PublishedACS(eta=0.01)", *MASKED[1:])},
    "epsilon_block": {"Block(16, 16)": (*HYBRID, "FirstHitting"), "Block(16, 4)": HYBRID[:2]},
    "gamma_slide": {"Slide(16, 4)": HYBRID, "Slide(16, 1)": HYBRID[:2]},
}
NUMBER = 4


def draw(model: textdiff.Model, schedule: str, sampler: str) -> textdiff.Samples:
    """A few samples, from nothing and after a prompt."""
    how = {"hyperschedule": parse(schedule, Hyperschedule), "sampler": parse(sampler, Sampler)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this model was trained under")
        return model.generate(
            ["", "The city of"],
            num_return_sequences=NUMBER // 2,
            output_trajectory=True,
            batch_size=NUMBER,
            **how,
        )


def entry(samples: textdiff.Samples) -> dict[str, Any]:
    """What is kept of a draw."""
    mean = sum(samples.nfe) / len(samples.nfe)
    return {
        "texts": samples.texts,
        "nfe": mean,
        "tokens_per_forward": samples.tokens_per_forward,
        "seconds": samples.seconds,
    }


def reading(results: dict[str, Any]) -> str:
    """All texts, to read."""
    lines = [
        "# Samples of the six models",
        "",
        "Small models (4 x 128, 1,200 steps): what to look at is what a sampler changes.",
    ]
    for name, result in results.items():
        lines += ["", f"## {name}"]
        for case, drawn in result["cases"].items():
            lines += [
                "",
                f"### {case}: {drawn['nfe']:.0f} calls, "
                f"{drawn['tokens_per_forward']:.1f} tokens per call",
                "",
            ]
            lines += [
                line for text in drawn["texts"] for line in (f"> {' '.join(text.split())}", "")
            ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Draw what is missing, write all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    output = parser.parse_args().output
    file = output / "result.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, schedules in CASES.items():
        model = textdiff.load(MODELS / name)
        paths: dict[str, Any] = {}
        result = results.setdefault(name, {**provenance(model, MODELS / name, 0), "cases": {}})
        for schedule, samplers in schedules.items():
            for sampler in samplers:
                case = f"{schedule}, {sampler}"
                if case in result["cases"]:
                    continue
                samples = draw(model, schedule, sampler)
                result["cases"][case] = entry(samples)
                paths[case] = samples.trajectories[NUMBER // 2]
                write_json(file, results)
                print(f"{name}: {case}, {samples.seconds:.0f} s")
        if paths:
            numbered = {f"sample {n}": case for n, case in enumerate(paths, start=1)}
            text = page(
                list(paths.values()),
                model.decode_token,
                model.mask_id,
                f"{name}: one sample a sampler",
                numbered,
            )
            PAGES.mkdir(parents=True, exist_ok=True)
            write_text(PAGES / f"{name}.html", text)
    write_text(output / "samples.md", reading(results))


if __name__ == "__main__":
    main()
