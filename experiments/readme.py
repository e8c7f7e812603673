"""Write the tables of the READMEs from the JSONs of experiments and benchmarks: `python
experiments/readme.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from correction_tables import correction
from gpu_tables import gpu

from textdiff.evaluation.tables import plus_minus
from textdiff.files import write_text

ROOT = Path(__file__).resolve().parents[1]


def threads(result: dict, name: str = "thread") -> str:
    """`1 thread`, `2 threads`."""
    return f"{result['threads']} {name}{'s' * (result['threads'] > 1)}"


def quickstart(result: dict) -> str:
    """The quickstart's own numbers, and what it drew."""
    first = result["gpt"]["bounds"][0]
    per_byte = first["tokens"] / first["text_bytes"] / math.log(2)  # bits, of one nat per token
    lines = [
        f"`make quickstart` gave this on {threads(result, 'CPU thread')}: {first['tokens']:,} "
        f"validation tokens of {first['text_bytes']:,} bytes, log N {result['log_N']:.3f}.",
        "",
        "| model | bound on -log p | nats/token | bits/byte | estimator |",
        "|---|---|---:|---:|---|",
        f"| no context | unigram entropy | {result['unigram_entropy']:.3f} | "
        f"{per_byte * result['unigram_entropy']:.3f} | |",
    ]
    for model, bounds in (("GPT", result["gpt"]["bounds"]), ("hybrid", result["bounds"])):
        for b in bounds:
            error = b["standard_error"]
            lines.append(
                f"| {model} | {b['name']} | {plus_minus(b['nats'], error)} | "
                f"{plus_minus(b['bits_per_byte'], per_byte * error)} | {b['estimator']} |"
            )
    lines += ["", f"The same prompt, `{result['filter']}`:"]
    for name, drawn in result["samples"].items():
        cost = f"{drawn['nfe']} calls, {drawn['tokens_per_forward']:.2f} tokens a call"
        lines += ["", f"{name}, {cost}:", "", "```text", drawn["texts"][0].rstrip(), "```"]
    return "\n".join(lines)


def training(result: dict) -> str:
    """Training speed beside GPT-2."""
    o = result["settings"]
    lines = [
        f"`benchmarks/training.py`, {o['layers']} x {o['width']}, context {o['length']}, "
        f"vocabulary {int(o['vocabulary']):,}, batch {o['batch']}, "
        f"{threads(result)}, {result['clock']}, interleaved in one run; "
        "ratios are what carries over:",
        "",
        "| case | tokens/s ÷ GPT-2's | supervised positions/s "
        "| memory alive above weights, gradients and moments, GB | body | head | optimizer |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {c['ratio']:.2f} | {c['supervised_per_second']:.0f} | {c['memory_gb']:.2f} | "
        + " | ".join(f"{100 * c[part]:.0f} %" for part in ("body", "head", "optimizer"))
        + " |"
        for name, c in result["cases"].items()
    ]
    return "\n".join(lines)


SIX = {
    "ar": "AR",
    "mdlm": "MDLM",
    "gamma": "γ flat (0.05)",
    "epsilon": "ε flat (0.01)",
    "epsilon_block": "ε block 16",
    "gamma_slide": "γ slide (16, 4)",
}


def six_models(result: dict) -> str:
    """Bounds of the six models."""
    models = result["models"]
    tokens = models["ar"]["bounds"][0]["tokens"]
    lines = [
        f"Validation text of WikiText-2 ({tokens:,} BPE tokens), "
        f"{models['ar']['steps']:,} steps of 4,096 tokens each:",
        "",
        "| model | bound | nats/token | ± s.e. | perplexity | estimator | training, s |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for name, title in SIX.items():
        for number, b in enumerate(models[name]["bounds"]):
            first = (title, f"{models[name]['training_seconds']:.0f}") if number == 0 else ("", "")
            cells = (
                b["name"],
                f"{b['nats']:.3f}",
                f"{b['standard_error']:.3f}",
                f"{b['perplexity']:.1f}",
                b["estimator"],
            )
            lines.append(f"| {' | '.join((first[0], *cells, first[1]))} |")
    return "\n".join(lines)


ZERO = {"wikitext2": "WikiText-2", "lambada": "LAMBADA", "pubmed": "PubMed", "arxiv": "arXiv"}


def zero_shot(result: dict) -> str:
    """Zero-shot perplexities of the six models, and last words."""
    models = result["models"]
    texts = [text for text in ZERO if any(text in by_text for by_text in models.values())]
    lines = [
        f"| model | bound | {' | '.join(ZERO[text] for text in texts)} | last word right |",
        "|---|---|" + "---:|" * (len(texts) + 1),
    ]
    for name, by_text in models.items():
        for number, bound in enumerate(next(iter(by_text.values()))["bounds"] if by_text else []):
            cells = []
            for text in texts:
                b = by_text[text]["bounds"][number] if text in by_text else None
                cells.append(
                    ""
                    if b is None
                    else f"{b['nats']:.3f} ± {b['standard_error']:.3f} ({b['bits_per_byte']:.2f})"
                )
            words = by_text.get("last_word")
            last = f"{words['correct']} of {words['passages']:,}" if words and not number else ""
            lines.append(
                f"| {' | '.join(('' if number else SIX[name], bound['name'], *cells, last))} |"
            )
    return "\n".join(lines)


def estimators(result: dict) -> str:
    """Variance by the way of drawing."""
    lines = [
        "| way of drawing | MDLM: variance x calls | ε flat, B3: variance x calls |",
        "|---|---:|---:|",
    ]
    for way in result["spread"]["mdlm"]:
        cells = []
        for name in ("mdlm", "epsilon"):
            numbers = result["spread"].get(name, {}).get(way)
            cells.append(
                f"{numbers['variance_per_call']:.3f} ± {numbers['variance_per_call_error']:.3f}"
                if numbers
                else ""
            )
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for name, by_bound in result["coverage"].items():
        for bound, n in by_bound.items():
            lines += [""] if lines[-1].startswith("|") else []
            lines.append(
                f"- {SIX[name]}, {bound.split(':')[0]}: spread over {n['seeds']} seeds "
                f"{n['deviation']:.4f}, stated {n['stated']:.4f}; {100 * n['within_1.96']:.0f} ± "
                f"{100 * n['within_error']:.0f} % within 1.96 of it."
            )
    return "\n".join(lines)


def adapt(result: dict) -> str:
    """Bounds before and after the adaptation, and drawing."""
    o, b, drawn = result["settings"], result["bounds"], result["drawn"]
    tokens, steps = b["ar"]["1"][0]["tokens"], result["curve"][-1]["step"]
    lines = [
        f"{steps} steps of 2,040 tokens ({result['training_cpu_seconds']:.0f} s of one CPU core), "
        f"bounds on {tokens:,} held-out tokens; {o['new']} tokens drawn behind {o['prompt']!r}, "
        f"{o['batch']} samples, tokens per second of one core:",
        "",
        "| drawn by | NELBO before | NELBO after | the base finds its samples, nats/token "
        f"| tokens/s, batch 1 | batch {o['batch']} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in drawn.items():
        if "ρ" in name:
            rho = name.split()[-1]
            cells = [
                f"{b[when][rho][0]['nats']:.2f} ± {b[when][rho][0]['standard_error']:.2f}"
                for when in ("before", "after")
            ]
        else:
            cells = [f"exact {b['ar']['1'][0]['nats']:.2f}", ""]
        cells += [f"{row['judge_nats']:.2f} ± {row['judge_error']:.2f}"]
        cells += [f"{row[f'tokens_per_second_{size}']:.0f}" for size in (1, o["batch"])]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def generation(result: dict) -> str:
    """Speed of generation beside GPT-2."""
    o, batches = result["settings"], json.loads(result["settings"]["batches"])
    lines = [
        f"{o['layers']} x {o['width']}, vocabulary {int(o['vocabulary']):,}, "
        f"{o['length']} new tokens, {threads(result)} ({result['clock']}); "
        "ratios are what carries over. "
        f"NFE and rows are of the batch of {batches[-1]}:",
        "",
        "| case | "
        + " | ".join(f"tokens/s ÷ GPT-2's, batch {b}" for b in batches)
        + " | NFE | rows: body | head | memory, MB |",
        "|---|" + "---:|" * (len(batches) + 4),
    ]
    for name, c in result["cases"].items():
        last = c[str(batches[-1])]
        cells = [f"{c[str(b)]['ratio']:.2f}" for b in batches]
        cells += [
            f"{last['nfe']:.0f}",
            f"{last['body_rows']:,}",
            f"{last['head_rows']:,}",
            f"{1000 * c['memory_gb']:.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


FRONTIER = ("gen-PPL (corpus)", "token entropy", "distinct-2", "MAUVE")


def frontier(result: dict) -> str:
    """Sample quality over samplers and hyperschedules."""
    lines = [
        f"| model | sampler | hyperschedule | ρ | NFE | {' | '.join(FRONTIER)} |",
        "|---|---|---|---:|---:|" + "---:|" * len(FRONTIER),
    ]
    digits = {"gen-PPL (corpus)": 0, "MAUVE": 4}
    for r in [
        *result["frontier"],
        {"run": "human", "sampler": "", "hyperschedule": "", **result["human"]},
    ]:
        cells = [
            f"{r[name][0]:.{digits.get(name, 3)}f} ± {r[name][1]:.{digits.get(name, 3)}f}"
            for name in FRONTIER
        ]
        cost = (f"{r['rho']:.2g}", f"{r['nfe']:.0f}") if "rho" in r else ("", "")
        title = SIX.get(r["run"], r["run"])
        lines.append(
            f"| {title} | {r['sampler']} | {r['hyperschedule']} | {' | '.join((*cost, *cells))} |"
        )
    return "\n".join(lines)


Section = tuple[str, Callable[[dict], str]]
PAGES: dict[str, dict[str, Section]] = {
    "experiments/README.md": {
        "quickstart": ("experiments/quickstart/result.json", quickstart),
        "six_models": ("experiments/six_models/result.json", six_models),
        "zero_shot": ("experiments/zero_shot/result.json", zero_shot),
        "frontier": ("experiments/frontier/frontier.json", frontier),
        "estimators": ("experiments/estimators/result.json", estimators),
        "correction": ("experiments/correction/result.json", correction),
        "adapt": ("experiments/adapt/result.json", adapt),
    },
    "benchmarks/README.md": {
        "training": ("benchmarks/training.json", training),
        "generation": ("benchmarks/generation.json", generation),
        "gpu": ("benchmarks/gpu.json", gpu),
    },
}
"""Page -> section -> the JSON that it is made of, and how."""


def render(page: str, text: str) -> str:
    """A page with every section between `<!-- name -->` and `<!-- /name -->` made of its JSON."""
    for name, (file, make) in PAGES[page].items():
        if not (ROOT / file).exists():  # not measured yet
            continue
        head, rest = text.split(f"<!-- {name} -->\n")
        _, tail = rest.split(f"<!-- /{name} -->")
        table = make(json.loads((ROOT / file).read_text(encoding="utf-8")))
        text = f"{head}<!-- {name} -->\n{table}\n<!-- /{name} -->{tail}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        write_text(path, render(page, path.read_text(encoding="utf-8")))
