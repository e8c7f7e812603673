"""The model card: README.md with a YAML head, written from what the model folder holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..denoiser.prediction import Prediction
from ..objective.bounds import bounds
from ..spec import classes_of
from .model import Model

PICTURES = {"loss.png": "Training loss and validation bounds", "hyperschedule.png": "Hyperschedule"}

SHOWN = {
    "name",
    "hyperschedule",
    "nats",
    "standard_error",
    "bits",
    "perplexity",
    "estimator",
    "tokens",
}

LOAD = """\
```python
import textdiff
{imports}
# verify: computes the reference bound of reference.json again
model = textdiff.load("{name}", verify=True{classes})
print(model.generate(num_return_sequences=2{sampler}).texts)
```

```bash
textdiff sample {name} --num-return-sequences 2{option}{modules}
textdiff evaluate perplexity {name} --corpus FILE{modules}
```

`transformers.AutoModel.from_pretrained` gives the network alone after `import textdiff`. \
No code is loaded from this repository by either. Only `textdiff fit --config config.yaml` runs \
the classes that the file names: read it before you give it one."""


def results(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every JSON below `results` that says of which weights it is (`textdiff evaluate` writes
    them), with its path.
    """
    for path in sorted((folder / "results").rglob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(result, dict) and "weights_sha256" in result:
            yield path, result


def license_of(path: Path) -> str | None:
    """The license that a card states."""
    return ModelCard.load(path).data.get("license")


def _kebab(name: str) -> str:
    """EpsilonHybrid -> epsilon-hybrid, QuenchedAR -> quenched-ar."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _rows(folder: Path) -> list[str]:
    """Bounds with standard errors as rows of a table, each once."""
    rows: dict[str, None] = {}
    for _, result in results(folder):
        data = result.get("data", {})
        text = f"{data.get('corpus', '')} {data.get('split', '')}".strip()
        stated = result.get("bounds", [])
        for bound in stated if isinstance(stated, list) else []:
            if not (
                isinstance(bound, dict) and bound.keys() >= SHOWN
            ):  # another kind of evaluation
                continue
            cells = [
                bound["name"],
                bound["hyperschedule"],
                f"{bound['nats']:.4f}",
                f"{bound['standard_error']:.4f}",
            ]
            cells += [
                f"{bound['bits']:.4f}",
                f"{bound['perplexity']:.3f}",
                bound["estimator"],
                text,
                f"{bound['tokens']:,}",
            ]
            rows["| " + " | ".join(cells) + " |"] = None
    return list(rows)


def _evaluation(folder: Path) -> str:
    rows = _rows(folder)
    if not rows:
        return "Not measured yet: `textdiff evaluate perplexity` does, with standard errors."
    head = [
        "bound",
        "hyperschedule",
        "nats/token",
        "± s.e.",
        "bits/token",
        "perplexity",
        "estimator",
        "text",
        "tokens",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * 4 + "---|---|---:|", *rows]
    return "\n".join(
        [*lines, "", "Standard errors are Monte Carlo errors on the very text that was scored."]
    )


def _which_bound(model: Model) -> str:
    """Which number is about the text that the model draws."""
    if model.prediction == Prediction.LOG_SCORE:
        return (
            "The NELBO is the score entropy of the noising process, a bound on −log p of its "
            "reverse process in continuous time: under blocks and slides, of the limit of many "
            "steps at the schedule's lags."
        )
    if model.hyperschedule.plan(model.length).flat:
        said = (
            "The NELBO bounds −log p in continuous time, the limit of many steps. `generate` "
            "draws from the T-step chain, whose own bound is what `textdiff evaluate perplexity "
            "--discrete` reports."
        )
    else:
        said = (
            "The NELBO (for an autoregressive model the exact −log p) is that of the very T-step "
            "chain that `generate` draws from."
        )
    stated = bounds(model.process, model.hyperschedule, model.length, prediction=model.prediction)
    if len(stated) > 1:
        said += (
            " B1 and B2 are other readings of the same network, by masking alone: they do not "
            "describe what `generate` draws."
        )
    return (
        f"{said} Temperature, filters and correcting samplers change the law: no bound here "
        "describes them."
    )


def _head(model: Model, license: str) -> str:
    tags = ["textdiff", "diffusion-language-model"]
    tags += [_kebab(type(part).__name__) for part in (model.process, model.hyperschedule)]
    data = ModelCardData(
        license=license, library_name="textdiff", tags=tags, pipeline_tag="text-generation"
    )
    return f"---\n{data.to_yaml()}\n---"


def _load(model: Model, name: str) -> str:
    """How to open and sample it; the default sampler does not take log-scores."""
    config = model.generation_config
    parts = (model.process, model.hyperschedule, config.sampler, config.hyperschedule)
    own = {cls for cls in classes_of(*parts) if cls.__module__.split(".")[0] != "textdiff"}
    imports = sorted(f"from {cls.__module__} import {cls.__name__}\n" for cls in own)
    modules = sorted({f" --import {cls.__module__}" for cls in own})
    classes = ", ".join(sorted(cls.__name__ for cls in own))
    sampler, option = "", ""
    if model.prediction == Prediction.LOG_SCORE:
        imports.append("from textdiff.samplers import Analytic\n")
        sampler, option = ", sampler=Analytic()", " --sampler Analytic"
    return LOAD.format(
        name=name,
        imports="".join(imports),
        classes=f", classes=[{classes}]" if own else "",
        sampler=sampler,
        option=option,
        modules="".join(modules),
    )


def render(model: Model, folder: Path, name: str, license: str) -> str:
    """The card of the model in a folder; `name` is what a reader gives to `textdiff.load`."""
    network = model.network
    size = sum(p.numel() for p in network.parameters())
    sees = "sees" if network.sees_time else "does not see"
    facts = {
        "noising process": f"`{model.process}`",
        "hyperschedule": f"`{model.hyperschedule}`",
        "prediction": f"{model.prediction}, {'shifted' if network.shifted else 'aligned'} layout",
        "network": f"{type(network).__name__}, {size:,} parameters, {sees} the time",
        "tokens": f"N = {network.num_tokens:,} and MASK; sequences of {model.length} in training",
    }
    if "corpus" in model.data:
        facts["training text"] = f"{model.data['corpus']['class_path'].rpartition('.')[2]}"
    table = "\n".join(
        ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]
    )
    pictures = [
        f"![{text}]({file})" for file, text in PICTURES.items() if (folder / file).is_file()
    ]
    parts = [
        _head(model, license),
        f"# {name.rpartition('/')[2]}",
        "A hybrid diffusion language model made with textdiff.",
    ]
    parts += [
        table,
        *pictures,
        "## Load and sample",
        _load(model, name),
        "## Evaluation",
        _evaluation(folder),
        _which_bound(model),
    ]
    return "\n\n".join(parts) + "\n"
