"""A report of every result in a folder, as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_bytes, write_text
from .report_sections import KINDS, Results, Section, other

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "reference.json",
)
"""JSON in a model folder that is no result."""


def read_results(folder: Path) -> Results:
    """Every JSON below a folder, by its path in it; the parts of a frontier are left to its
    summary.

    Raises:
        ValueError: if there is none, or one is not JSON.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r} to report on")
    results: Results = {}
    frontiers = {path.parent for path in folder.rglob("frontier.json")}
    for path in sorted(folder.rglob("*.json")):
        part = path.parent.parent in frontiers
        if part or path.name in MODEL_FILES or path.name.startswith("."):
            continue
        try:
            results[str(path.relative_to(folder))] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): remove it or write it again") from None
    if not results:
        raise ValueError(
            f"{folder} holds no result: run textdiff evaluate ..., or textdiff sample with "
            f"--output {folder}/NAME.json"
        )
    return results


def _kind(result: Any) -> str | None:
    """The first of `KINDS` that a result is of."""
    if not isinstance(result, dict):
        return None
    return next((kind for kind in KINDS if kind in result), None)


def sections(results: Results) -> list[Section]:
    """The report's parts: one for each kind of result, then every other file."""
    kinds = {name: _kind(result) for name, result in results.items()}
    parts = []
    for kind, section in KINDS.items():
        alike = {name: results[name] for name in results if kinds[name] == kind}
        if alike:
            parts.append(section(alike))
    return parts + [other(name, results[name]) for name in results if kinds[name] is None]


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png")
    return file.getvalue()


STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222}
body{max-width:1200px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:right}
th:first-child,td:first-child{text-align:left}
img{max-width:100%}
"""


def write(title: str, parts: Sequence[Section], markdown: Path, html: Path) -> None:
    """Write both pages: Markdown with its figures in a folder of its name, HTML with all in it."""
    images = markdown.with_suffix("")
    md = [f"# {title}"]
    page = [f"<h1>{escape(title)}</h1>"]
    for part in parts:
        md.append(f"## {part.title}")
        if part.text:
            md.append(part.text)
        md += [table.markdown() for table in part.tables]
        page += [f"<h2>{escape(part.title)}</h2>", f"<p>{escape(part.text)}</p>"]
        page += [table.html() for table in part.tables]
        for name, figure in part.figures.items():
            image = _png(figure)
            write_bytes(images / f"{name}.png", image)
            md.append(f"![{name}]({images.name}/{name}.png)")
            data = base64.b64encode(image).decode()
            page.append(f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">')
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
    )
    write_text(markdown, "\n\n".join(md) + "\n")
    write_text(html, f"{head}<body>{''.join(page)}</body></html>\n")
