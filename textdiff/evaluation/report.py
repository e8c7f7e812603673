"""A report of every result in a folder: what each JSON becomes, and the page as Markdown and as one
HTML file.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import figures
from . import frontier
from .frontier_pictures import pictures
from .tables import Table, plus_minus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = dict[str, dict[str, Any]]  # results by file name


@dataclass(frozen=True)
class Section:
    """A part of the report: words, tables, and figures by name."""

    title: str
    text: str
    tables: Sequence[Table]
    figures: dict[str, Figure] = field(default_factory=dict)


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


def _bounds(found: Found) -> Section:
    flat = [(name, bound) for name, result in found.items() for bound in result["bounds"]]
    rows = [
        [
            name,
            b["name"],
            plus_minus(b["nats"], b["standard_error"], 4),
            f"{b['perplexity']:.2f}",
            str(b["tokens"]),
            b["estimator"],
            b["hyperschedule"],
        ]
        for name, b in flat
    ]
    header = [
        "file",
        "bound",
        "nats/token ± s.e.",
        "perplexity",
        "tokens",
        "estimator",
        "hyperschedule",
    ]
    names = [f"{name}: {b['name'].split(':')[0]}" for name, b in flat]
    figure = bars(
        names,
        [b["nats"] for _, b in flat],
        [b["standard_error"] for _, b in flat],
        "nats per token, ± s.e.",
    )
    text = "Bounds on -log p of a text; errors are Monte Carlo standard errors on that very text."
    return Section("Perplexity", text, [Table(header, rows)], {"bounds": figure})


def _quality(found: Found) -> Section:
    rows, definitions = [], {}
    for name, result in found.items():
        measures = {one["name"]: one for one in result["quality"]["measures"]}
        definitions |= {one["name"]: (one["definition"], one["error"]) for one in measures.values()}
        mauve = result.get("mauve")
        cells = [plus_minus(one["value"], one["standard_error"]) for one in measures.values()]
        cells.append(plus_minus(mauve["mauve"], mauve["sd"]) if mauve else "-")
        cells.append(plus_minus(mauve["human"]["mauve"], mauve["human"]["sd"]) if mauve else "-")
        q = result["quality"]
        rows.append(
            [name, *cells, str(q["texts"]), str(q["max_tokens"] or "all"), q["judge"]["name"]]
        )
    header = [
        "file",
        *definitions,
        "MAUVE ± k-means sd",
        "MAUVE of humans",
        "texts",
        "tokens",
        "judge",
    ]
    explained = Table(
        ["measure", "definition", "error"], [[name, *pair] for name, pair in definitions.items()]
    )
    text = (
        "Quality of samples. Numbers of different judges, lengths or sample counts do not compare."
    )
    return Section("Samples", text, [Table(header, rows), explained])


def _frontiers(found: Found) -> Section:
    tables, figures = [], {}
    for name, result in found.items():
        tables.append(frontier.table(result["frontier"], result["human"]))
        made = pictures(result["frontier"], result["human"])
        figures |= {
            f"{Path(name).parent.name}_{key}".strip("_"): figure for key, figure in made.items()
        }
    text = "Errors are bootstrap standard errors over samples (distinct-n: jackknife), of MAUVE the spread over k-means seeds."
    return Section("Frontier", text, tables, figures)


def _harness(found: Found) -> Section:
    rows = []
    for name, result in found.items():
        noise = result["standard_error_of_a_request"]
        for task, metrics in result["harness"].items():
            for metric, value in metrics.items():
                if isinstance(value, float) and "_stderr" not in metric:
                    error = metrics.get(metric.replace(",", "_stderr,", 1))
                    rows.append(
                        [
                            name,
                            task,
                            metric,
                            f"{value:.4f}",
                            f"{error:.4f}" if isinstance(error, float) else "-",
                        ]
                    )
                    rows[-1] += ["-" if noise is None else f"{noise:.3g}", result["likelihood"]]
    header = [
        "file",
        "task",
        "metric",
        "value",
        "s.e. over documents",
        "s.e. of a request, nats",
        "log-likelihoods",
    ]
    return Section("Harness", "Tasks of lm-evaluation-harness.", [Table(header, rows)])


def _samples(found: Found) -> Section:
    rows = []
    for name, result in found.items():
        s, texts = result.get("settings", {}), result["samples"]
        cost = [
            f"{s['nfe']:.0f}" if "nfe" in s else "-",
            f"{s['seconds']:.2f}" if "seconds" in s else "-",
        ]
        rows.append(
            [
                name,
                str(len(texts)),
                s.get("sampler", "-"),
                s.get("hyperschedule", "-"),
                *cost,
                texts[0][:120] if texts else "",
            ]
        )
    return Section(
        "Drawn texts",
        "",
        [
            Table(
                [
                    "file",
                    "texts",
                    "sampler",
                    "hyperschedule",
                    "NFE",
                    "seconds",
                    "the first one begins",
                ],
                rows,
            )
        ],
    )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or value is None


def _records(value: Any) -> dict[str, dict[str, Any]]:
    """A list or mapping of records, by number or name; empty if it is none."""
    named = (
        value
        if isinstance(value, dict)
        else dict(enumerate(value))
        if isinstance(value, list)
        else {}
    )
    return (
        {str(name): one for name, one in named.items()}
        if all(isinstance(one, dict) for one in named.values())
        else {}
    )


def _other(name: str, result: Any) -> Section:
    """Any other JSON: its plain values, and every list of records in it as a table."""
    content = result if isinstance(result, dict) else {"content": result}
    plain = [[key, _shown(value)] for key, value in content.items() if _plain(value)]
    tables, left = [Table(["name", "value"], plain)] if plain else [], []
    for key, value in content.items():
        if records := _records(value):
            columns = list(
                dict.fromkeys(
                    column
                    for one in records.values()
                    for column, cell in one.items()
                    if _plain(cell)
                )
            )
            rows = [
                [label, *(_shown(one.get(column, "")) for column in columns)]
                for label, one in records.items()
            ]
            tables.append(Table([key, *columns], rows))
        elif not _plain(value):
            left.append(key)
    return Section(name, f"Also in the file: {', '.join(left)}." if left else "", tables)


KINDS: dict[str, Callable[[Found], Section]] = {
    "bounds": _bounds,
    "quality": _quality,
    "frontier": _frontiers,
    "harness": _harness,
    "samples": _samples,
}
"""A result is of the first kind whose key it has; all results of a kind make one section."""


def read(folder: Path) -> Found:
    """Every JSON below a folder, by its path in it; the parts of a frontier are left to its
    summary.

    Raises:
        ValueError: if there is none, or one is not JSON.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r} to report on")
    found: Found = {}
    frontiers = {path.parent for path in folder.rglob("frontier.json")}
    model_files = {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
    }
    for path in sorted(folder.rglob("*.json")):
        if path.name in model_files or path.name.startswith(".") or path.parent.parent in frontiers:
            continue
        try:
            found[str(path.relative_to(folder))] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): remove it or write it again") from None
    if not found:
        raise ValueError(
            f"{folder} holds no result: run textdiff evaluate ... or textdiff sample --json with "
            "an output there"
        )
    return found


def sections(found: Found) -> list[Section]:
    """The report's parts: one for each kind of result, then every other file."""
    kinds = {
        name: next((kind for kind in KINDS if isinstance(result, dict) and kind in result), None)
        for name, result in found.items()
    }
    made = [
        make({name: found[name] for name in found if kinds[name] == kind})
        for kind, make in KINDS.items()
        if kind in kinds.values()
    ]
    return made + [_other(name, found[name]) for name in found if kinds[name] is None]


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png")
    return file.getvalue()


STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:right}th:first-child,td:first-child{text-align:left}
img{max-width:100%}"""


def write(title: str, parts: Sequence[Section], markdown: Path, html: Path) -> None:
    """Write both pages: Markdown with its figures in a folder of its name, HTML with all in it."""
    images = markdown.with_suffix("")
    md, page = [f"# {title}"], [f"<h1>{escape(title)}</h1>"]
    for part in parts:
        md += [
            f"## {part.title}",
            *([part.text] if part.text else []),
            *(table.markdown() for table in part.tables),
        ]
        page += [
            f"<h2>{escape(part.title)}</h2>",
            f"<p>{escape(part.text)}</p>",
            *(table.html() for table in part.tables),
        ]
        for name, figure in part.figures.items():
            image = _png(figure)
            images.mkdir(parents=True, exist_ok=True)
            (images / f"{name}.png").write_bytes(image)
            md.append(f"![{name}]({images.name}/{name}.png)")
            page.append(
                f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
            )
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
    markdown.write_text("\n\n".join(md) + "\n", encoding="utf-8")
    html.write_text(f"{head}<body>{''.join(page)}</body></html>\n", encoding="utf-8")
