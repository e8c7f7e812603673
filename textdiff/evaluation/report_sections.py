"""What each kind of result becomes in a report: words, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..viewer import figures
from . import frontier
from .frontier_pictures import pictures
from .tables import Table, metric_rows, per_call, plus_minus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = dict[str, dict[str, Any]]
"""The content of JSON files, by file name."""


@dataclass(frozen=True)
class Section:
    """A part of the report: words, tables, and figures by name."""

    title: str
    text: str
    tables: Sequence[Table]
    figures: Mapping[str, Figure] = field(default_factory=dict)


def bars(
    names: Sequence[str], values: Sequence[float], errors: Sequence[float], label: str
) -> Figure:
    """Numbers with their errors, one line each."""
    figure = figures.figure(8, 1.2 + 0.28 * len(names))
    axes = figure.add_subplot()
    axes.errorbar(values, range(len(names)), xerr=errors, fmt="o", markersize=4, capsize=2)
    axes.set(yticks=range(len(names)), xlabel=label, ylim=(len(names) - 0.5, -0.5))
    axes.set_yticklabels(names, fontsize=7)
    axes.grid(axis="x", alpha=0.3)
    return figure


def bounds(results: Results) -> Section:
    """Perplexities, each with what it is about; of a number that several files hold, the first."""
    header = ["file", "bound", "nats/token ± s.e.", "perplexity", "tokens", "estimator"]
    rows = []
    names = []
    values = []
    errors = []
    seen = set()
    for name, result in results.items():
        for bound in result["bounds"]:
            what = ("name", "nats", "standard_error", "tokens", "hyperschedule", "process")
            number = tuple(bound.get(key) for key in what)
            if number in seen:
                continue
            seen.add(number)
            nats = plus_minus(bound["nats"], bound["standard_error"], 4)
            perplexity = f"{bound['perplexity']:.2f}"
            about = [str(bound["tokens"]), bound["estimator"], bound["hyperschedule"]]
            rows.append([name, bound["name"], nats, perplexity, *about])
            names.append(f"{name}: {bound['name'].split(':')[0]}")
            values.append(bound["nats"])
            errors.append(bound["standard_error"])
    figure = bars(names, values, errors, "nats per token, ± s.e.")
    text = "Bounds on -log p of a text; errors are Monte Carlo standard errors on that very text."
    table = Table([*header, "hyperschedule"], rows)
    return Section("Perplexity", text, [table], {"bounds": figure})


def samples_quality(results: Results) -> Section:
    """Measures of samples under a judge, and their definitions."""
    rows = []
    definitions: dict[str, tuple[str, str]] = {}
    for name, result in results.items():
        quality = result["quality"]
        cells = []
        for one in quality["measures"]:
            definitions[one["name"]] = (one["definition"], one["error"])
            cells.append(plus_minus(one["value"], one["standard_error"]))
        mauve = result.get("mauve")
        for one in (mauve, mauve["human"]) if mauve else ():
            cells.append(plus_minus(one["mauve"], one["sd"]))
        if not mauve:
            cells += ["-", "-"]
        tokens = str(quality["max_tokens"] or "all")
        rows.append([name, *cells, str(quality["texts"]), tokens, quality["judge"]["name"]])
    mauves = ["MAUVE ± k-means sd", "MAUVE of humans"]
    header = ["file", *definitions, *mauves, "texts", "tokens", "judge"]
    explained = [[name, *pair] for name, pair in definitions.items()]
    tables = [Table(header, rows), Table(["measure", "definition", "error"], explained)]
    text = (
        "Quality of samples. Numbers of different judges, lengths or sample counts do not compare."
    )
    return Section("Samples", text, tables)


def frontiers(results: Results) -> Section:
    """The points of every frontier, and its pictures."""
    tables = []
    shown: dict[str, Figure] = {}
    for name, result in results.items():
        rows = result["frontier"]
        human = result["human"]
        tables.append(frontier.table(rows, human))
        folder = Path(name).parent.name
        for key, figure in pictures(rows, human).items():
            shown[f"{folder}_{key}".strip("_")] = figure
    text = (
        "Errors are bootstrap standard errors over samples (distinct-n: jackknife), of MAUVE the "
        "spread over k-means seeds."
    )
    return Section("Frontier", text, tables, shown)


def tasks(results: Results) -> Section:
    """Metrics of lm-evaluation-harness."""
    rows = []
    for name, result in results.items():
        noise = result["standard_error_of_a_request"]
        last = ["-" if noise is None else f"{noise:.3g}", result["likelihood"]]
        rows += [[name, *row, *last] for row in metric_rows(result["harness"])]
    header = ["file", "task", "metric", "value", "s.e. over documents"]
    header += ["s.e. of a request, nats", "log-likelihoods"]
    return Section("Harness", "Tasks of lm-evaluation-harness.", [Table(header, rows)])


def drawn_texts(results: Results) -> Section:
    """Sets of samples, what they cost and how they begin."""
    rows = []
    for name, result in results.items():
        settings = result.get("settings", {})
        texts = result["samples"]
        nfe = f"{settings['nfe']:.0f}" if "nfe" in settings else "-"
        seconds = f"{settings['seconds']:.2f}" if "seconds" in settings else "-"
        law = [settings.get("sampler", "-"), settings.get("hyperschedule", "-")]
        begin = texts[0][:120] if texts else ""
        rows.append([name, str(len(texts)), *law, nfe, per_call(settings), seconds, begin])
    header = ["file", "texts", "sampler", "hyperschedule", "NFE", "tokens/call", "seconds"]
    return Section("Drawn texts", "", [Table([*header, "the first one begins"], rows)])


KINDS: dict[str, Callable[[Results], Section]] = {
    "bounds": bounds,
    "quality": samples_quality,
    "frontier": frontiers,
    "harness": tasks,
    "samples": drawn_texts,
}
"""A result is of the first kind whose key it has; all results of a kind make one section."""


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or value is None


def _records(value: Any) -> dict[str, dict[str, Any]]:
    """A list or mapping of records, by number or name; empty if it is none."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        return {}
    return {str(name): one for name, one in value.items()}


def _record_table(key: str, records: dict[str, dict[str, Any]]) -> Table:
    """A line for each record, with the plain values that one of them has."""
    columns: dict[str, None] = {}
    for record in records.values():
        columns |= {column: None for column, cell in record.items() if _plain(cell)}
    rows = [
        [label, *(_shown(record.get(column, "")) for column in columns)]
        for label, record in records.items()
    ]
    return Table([key, *columns], rows)


def other(name: str, result: Any) -> Section:
    """Any other JSON: its plain values, and every list of records in it as a table."""
    content = result if isinstance(result, dict) else {"content": result}
    plain = [[key, _shown(value)] for key, value in content.items() if _plain(value)]
    tables = [Table(["name", "value"], plain)] if plain else []
    left = []
    for key, value in content.items():
        if records := _records(value):
            tables.append(_record_table(key, records))
        elif not _plain(value):
            left.append(key)
    text = f"Also in the file: {', '.join(left)}." if left else ""
    return Section(name, text, tables)
