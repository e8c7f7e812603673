"""The section of experiments/README.md on where correction pays."""

from __future__ import annotations

from textdiff.evaluation.tables import Table, plus_minus


def correction(result: dict) -> str:
    """Bounds beside the entropy, then valid share and entropy of the valid samples by calls."""
    parts = []
    for task in dict.fromkeys(row["task"] for row in result["bounds"]):
        known = [row for row in result["bounds"] if row["task"] == task]
        told = "; ".join(
            f"{row['model']} {plus_minus(*row['bound'], digits=2)} ({_seeds(row['seeds'])})"
            for row in known
        )
        entropy = known[0]["entropy"]
        parts.append(f"{task}: entropy {entropy:.2f} nats a text; bounds {told}.")
        parts.append(_shares([row for row in result["drawn"] if row["task"] == task]))
    return "\n\n".join(parts)


def _shares(rows: list[dict]) -> str:
    """Model and sampler by calls: `valid share (entropy of the valid ones)`."""
    plain = [row for row in rows if row["temperature"] == 1.0]
    calls = sorted({row["calls"] for row in plain})
    cells = {(row["model"], row["sampler"], row["calls"]): row for row in plain}
    lines = []
    for model, sampler in dict.fromkeys((row["model"], row["sampler"]) for row in plain):
        line = [model, f"`{sampler}`"]
        for count in calls:
            row = cells.get((model, sampler, count))
            line.append(
                f"{plus_minus(*row['valid'], digits=2)} ({row['entropy_of_valid'][0]:.2f})"
                if row
                else ""
            )
        lines.append(line)
    header = ("model", "sampler", *(f"{count} calls" for count in calls))
    return Table(header, lines, (0, 1)).markdown()


def _seeds(count: int) -> str:
    return "one training seed" if count == 1 else f"{count} seeds"
