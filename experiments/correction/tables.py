"""Tables and plots of the points of the study."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from textdiff.evaluation.tables import Table, plus_minus
from textdiff.files import write_json, write_picture
from textdiff.viewer.figures import figure


def spread(values: list[float]) -> list[float | None]:
    """Mean over training seeds and its standard error (None of one)."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return [mean(values), error]


def summary(points: list[dict]) -> list[dict]:
    """A row for every task, model, sampler, number of calls and temperature: means over seeds."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for point in points:
        for row in point["drawn"]:
            key = (point["task"], point["model"])
            groups[(*key, row["sampler"], row["calls"], row["temperature"])].append(row)
    names = ("task", "model", "sampler", "calls", "temperature")
    numbers = ("valid", "wrong", "nfe", "entropy_of_valid", "seconds")
    return [
        dict(zip(names, key, strict=True))
        | {name: spread([row[name] for row in rows]) for name in numbers}
        | {"seeds": len(rows)}
        for key, rows in groups.items()
    ]


def bound_of(point: dict) -> float:
    """Nats of the bound of the process that is sampled, which is named first."""
    return next(iter(point["bounds"].values()))[0]


def bound_rows(points: list[dict]) -> list[dict]:
    """The bound of every model, nats a text, beside the entropy of the language."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for point in points:
        groups[point["task"], point["model"]].append(point)
    return [
        {
            "task": task,
            "model": model,
            "bound": spread([bound_of(point) for point in some]),
            "entropy": some[0]["entropy"],
            "training_seconds": mean(point["training_seconds"] for point in some),
            "seeds": len(some),
        }
        for (task, model), some in groups.items()
    ]


def share_table(rows: list[dict], task: str) -> str:
    """Valid share of every model and sampler by calls."""
    chosen = [row for row in rows if row["task"] == task and row["temperature"] == 1.0]
    calls = sorted({row["calls"] for row in chosen})
    lines = []
    for model in dict.fromkeys(row["model"] for row in chosen):
        for sampler in dict.fromkeys(row["sampler"] for row in chosen if row["model"] == model):
            by_calls = {
                row["calls"]: row["valid"]
                for row in chosen
                if (row["model"], row["sampler"]) == (model, sampler)
            }
            cells = [plus_minus(*by_calls[n]) if n in by_calls else "" for n in calls]
            lines.append((model, sampler, *cells))
    return Table(("model", "sampler", *(f"{n} calls" for n in calls)), lines, (0, 1)).text()


def shares(rows: list[dict], task: str, folder: Path) -> None:
    """Valid share over NFE, a panel for every model."""
    chosen = [row for row in rows if row["task"] == task]
    models = list(dict.fromkeys(row["model"] for row in chosen if row["model"] != "ar"))
    samplers = list(dict.fromkeys(row["sampler"] for row in chosen))
    columns = min(4, len(models) + 1)  # the legend has a panel of its own
    made = figure(3.2 * columns, 2.6 * math.ceil(len(models) / columns))
    panels = made.subplots(math.ceil(len(models) / columns), columns, sharex=True, sharey=True)
    for panel, model in zip(panels.flat, models, strict=False):
        for number, sampler in enumerate(samplers):
            some = [r for r in chosen if (r["model"], r["sampler"]) == (model, sampler)]
            some = sorted((r for r in some if r["temperature"] == 1.0), key=lambda r: r["nfe"][0])
            if some:
                panel.errorbar(
                    [row["nfe"][0] for row in some],
                    [row["valid"][0] for row in some],
                    yerr=[row["valid"][1] or 0.0 for row in some],
                    marker="o",
                    markersize=3,
                    linewidth=1,
                    color=f"C{number}",
                    label=sampler,
                )
        panel.set_title(model, fontsize=9)
        panel.set_xscale("log", base=2)
    for panel in list(panels.flat)[len(models) :]:
        panel.axis("off")
    handles = {
        label: line
        for p in panels.flat
        for line, label in zip(*p.get_legend_handles_labels(), strict=True)
    }
    made.legend(handles.values(), handles.keys(), fontsize=7, frameon=False, loc="lower right")
    made.supxlabel("network calls of a sequence", fontsize=9)
    made.supylabel("valid share", fontsize=9)
    write_picture(folder / f"{task}_valid.png", made)


def entropies(rows: list[dict], task: str, entropy: float, folder: Path) -> None:
    """Entropy of the valid samples over their share, all models and calls."""
    chosen = [row for row in rows if row["task"] == task]
    samplers = list(dict.fromkeys(row["sampler"] for row in chosen))
    made = figure(6, 4)
    panel = made.subplots()
    for number, sampler in enumerate(samplers):
        some = [row for row in chosen if row["sampler"] == sampler and row["temperature"] == 1.0]
        panel.plot(
            [row["valid"][0] for row in some],
            [row["entropy_of_valid"][0] for row in some],
            "o",
            markersize=3,
            color=f"C{number}",
            label=sampler,
        )
    panel.axhline(entropy, color="#999999", linewidth=1)
    panel.set(xlabel="valid share", ylabel="entropy of the valid samples, nats")
    panel.legend(fontsize=7, frameon=False)
    write_picture(folder / f"{task}_entropy.png", made)


def report(points: list[dict], folder: Path) -> None:
    """Print the tables; write result.json and the plots."""
    rows = summary(points)
    known = bound_rows(points)
    write_json(folder / "result.json", {"bounds": known, "drawn": rows})
    lines = [
        (row["task"], row["model"], plus_minus(*row["bound"]), f"{row['entropy']:.3f}")
        for row in known
    ]
    print(Table(("task", "model", "bound, nats/text", "entropy"), lines, (0, 1)).text())
    for task in dict.fromkeys(row["task"] for row in known):
        print(f"\n{task}: valid share\n{share_table(rows, task)}")
        shares(rows, task, folder)
        entropies(rows, task, next(r["entropy"] for r in known if r["task"] == task), folder)
