"""The quality frontier: what a file says, what is drawn and measured once only, and its pictures;
the report of all results.
"""

import json
from dataclasses import replace

import pytest
import tiny
import yaml
from matplotlib.collections import LineCollection, PathCollection
from test_quality import judge_folder  # noqa: F401

from textdiff.commands.cli import main
from textdiff.evaluation import (
    frontier,
    frontier_pictures,
    report,
    report_sections,
    sweep,
    texts,
)


def study(folder, network, **changed):
    """A file of two points."""
    content = {
        "judge": str(network),
        "reference": "TinyShakespeare",
        "num_samples": 8,
        "max_tokens": 6,
        "buckets": 2,
        "length": 16,
    }
    group = {
        "runs": str(tiny.run()),
        "samplers": ["Ancestral"],
        "hyperschedules": ["Flat(2)", "Flat(4)"],
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**content, "points": [group], **changed}))
    return path


def result(run="epsilon", schedule="Flat(4)", rho=4.0):
    """A measured point, made up."""
    measures = {name: [1.0 + rho, 0.5] for name in frontier.SHOWN}
    return {
        "run": run,
        "sampler": "Ancestral",
        "hyperschedule": schedule,
        "rho": rho,
        "nfe": 4,
        "seconds_per_sample": 0.1,
    } | measures


def test_a_file_gives_every_combination(tmp_path):
    groups = [
        {
            "runs": ["a", "b"],
            "samplers": ["Ancestral", "ACS(eta=0.01)"],
            "hyperschedules": ["Flat(2)", "Flat(4)"],
        },
        {"runs": "c", "samplers": "Ancestral", "hyperschedules": "Slide(4, 1)"},
    ]
    found = frontier.read_study(study(tmp_path, "judge", points=groups))
    assert len(found.points) == 9 and found.points[0] == frontier.Point("a", "Ancestral", "Flat(2)")
    assert (
        len({point.name for point in found.points}) == 9
        and found.num_samples == 8
        and found.kmeans_seeds == 5
    )


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"nfe": 3}, "does not know nfe"),
        ({"judge": ""}, "lacks judge"),
        ({"num_samples": "8"}, "num_samples must be whole numbers"),
        ({"num_samples": 3}, "3 samples are too few for 2 buckets"),
        ({"points": [{"runs": "a"}]}, "each with runs, samplers, hyperschedules"),
        (
            {
                "points": [
                    {"runs": ["a", "x/a"], "samplers": "Ancestral", "hyperschedules": "Flat(2)"}
                ]
            },
            "names a point twice",
        ),
        (
            {"points": [{"runs": "a", "samplers": "Nope", "hyperschedules": "Flat(2)"}]},
            "unknown sampler 'Nope'",
        ),
        ({"points": [{"runs": "a", "samplers": "Ancestral", "hyperschedules": "Flat(0)"}]}, "Flat"),
        (
            {"points": [{"runs": "no/run", "samplers": "Ancestral", "hyperschedules": "Flat(2)"}]},
            "there is no model folder 'no/run'",
        ),
        ({"reference": "nope"}, "there is no corpus 'nope'"),
    ],
)
def test_errors_come_before_the_work(tmp_path, capsys, changed, message):
    path = study(tmp_path, "nobody/nothing", **changed)
    assert message in tiny.refused(capsys, ["evaluate", "frontier", str(path)])
    assert list(tmp_path.iterdir()) == [path]


def test_a_sweep_goes_on(tmp_path, judge_folder, monkeypatch, capsys):  # noqa: F811
    pytest.importorskip("mauve", reason="needs textdiff[eval]")
    path, folder, drawn = study(tmp_path, judge_folder), tmp_path / "sweep", []
    real = texts.draw

    def interrupted(*rest, **options):
        if len(drawn) == 1:
            raise KeyboardInterrupt
        return counted(*rest, **options)

    def counted(*rest, **options):
        drawn.append(options)
        return real(*rest, **options)

    monkeypatch.setattr(texts, "draw", interrupted)
    with pytest.raises(SystemExit):
        main(["evaluate", "frontier", str(path)])
    first = {file: file.read_bytes() for file in (folder / "points").iterdir()}
    assert len(first) == 1 and not (folder / "frontier.json").exists()

    monkeypatch.setattr(texts, "draw", counted)
    main(["evaluate", "frontier", str(path)])
    assert len(drawn) == 2 and all(file.read_bytes() == content for file, content in first.items())
    found = json.loads((folder / "frontier.json").read_text())
    assert [row["rho"] for row in found["frontier"]] == [8, 4] and [
        row["nfe"] for row in found["frontier"]
    ] == [2, 4]
    assert all(len(row["MAUVE"]) == 2 for row in [*found["frontier"], found["human"]])
    assert all(
        (folder / f"{name}.png").stat().st_size > 5000
        for name in ("perplexity_entropy", "perplexity_mauve", "quality_seconds")
    )
    assert "Flat(4)" in capsys.readouterr().out

    main(
        ["evaluate", "frontier", str(study(tmp_path, judge_folder, max_tokens=5))]
    )  # measured anew, not drawn anew
    assert len(drawn) == 2
    main(["evaluate", "frontier", str(study(tmp_path, judge_folder, seed=1))])
    assert len(drawn) == 4


def test_other_weights_are_another_point(tmp_path):
    found = frontier.read_study(study(tmp_path, "judge"))
    point = found.points[0]
    assert sweep.settings(found, point, False) != sweep.settings(
        found, replace(point, run=str(tiny.run("mdlm"))), False
    )


def test_an_edited_reference_is_another_measurement(tmp_path):
    text, before = tmp_path / "text.txt", {}
    for content in ("one", "two"):
        text.write_text(content)
        frontier.fingerprint.cache_clear()
        found = frontier.read_study(study(tmp_path, "judge", reference=str(text)))
        now = {
            measured: sweep.settings(found, found.points[0], measured) for measured in (False, True)
        }
        assert before.get(False, now[False]) == now[False] and before.get(True) != now[True], (
            "samples stay, measures do not"
        )
        before = now


def test_pictures_show_every_point_with_its_errors():
    rows = [result(schedule=f"Flat({16 // rho})", rho=float(rho)) for rho in (1, 2, 4)] + [
        result(run="other")
    ]
    human = {name: [2.0, 0.1] for name in frontier.SHOWN}
    figure = frontier_pictures.pictures(rows, human)["perplexity_entropy"]
    (axes,) = figure.axes
    dots = [part for part in axes.collections if isinstance(part, PathCollection)]
    assert [len(part.get_offsets()) for part in dots] == [3, 1]
    assert (
        sorted(dots[0].get_sizes()) == list(dots[0].get_sizes())
        and len(set(dots[0].get_sizes())) == 3
    )
    bars = [part for part in axes.collections if isinstance(part, LineCollection)]
    assert len(bars) == 2 * 3  # both directions, of two series and the human texts
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "epsilon, Flat, Ancestral",
        "other, Flat, Ancestral",
        "human",
    }


# --- the report


BOUND = {
    "name": "NELBO",
    "nats": 2.5,
    "standard_error": 0.125,
    "perplexity": 12.18,
    "tokens": 9,
    "estimator": "e",
    "hyperschedule": "h",
}


def test_a_report_of_every_kind(tmp_path, capsys):
    folder = tmp_path / "results"
    human = {name: [2.0, 0.1] for name in frontier.SHOWN}
    measure = {
        "name": "token entropy",
        "value": 3.5,
        "standard_error": 0.25,
        "error": "bootstrap",
        "definition": "<nats>",
    }
    quality = {"measures": [measure], "texts": 8, "max_tokens": None, "judge": {"name": "j"}}
    contents = {
        "perplexity.json": {"bounds": [BOUND]},
        "quality.json": {"quality": quality, "samples": ["a"]},
        "sweep/frontier.json": {"frontier": [result(), result(rho=8.0)], "human": human},
        "sweep/points/one.json": {"quality": quality},
        "harness.json": {
            "harness": {"task": {"acc,none": 0.5, "acc_stderr,none": 0.0625}},
            "likelihood": "exact",
            "standard_error_of_a_request": 0.0,
        },
        "drawn.json": {"samples": ["To be | or"], "settings": {"nfe": 4, "seconds": 1.5}},
        "bench.json": {
            "machine": "m",
            "cases": {"AR": {"speed": 7.25, "more": [1]}},
            "left": [1, 2],
        },
        "config.json": {"no": "result"},
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    main(["report", str(folder), "--title", "All <of> it"])
    assert "6 results in 6 sections" in capsys.readouterr().out
    markdown, html = (
        (folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("md", "html")
    )
    for shown in ("2.5000 ± 0.1250", "3.500 ± 0.250", "5.000 ± 0.500", "0.0625", "7.25"):
        assert shown in markdown and shown in html
    assert (
        "Also in the file: left." in markdown
        and "To be \\| or" in markdown
        and "&lt;nats&gt;" in html
        and "All &lt;of&gt; it" in html
    )
    images = sorted(path.name for path in (folder / "report").iterdir())
    assert images == [
        "bounds.png",
        *(
            f"sweep_{name}.png"
            for name in ("perplexity_entropy", "perplexity_mauve", "quality_seconds")
        ),
    ]
    assert html.count("data:image/png;base64,") == 4 and all(
        f"(report/{name})" in markdown for name in images
    )
    assert 'src="http' not in html and "href" not in html
    main(["report", str(folder)])  # its own files are no results


def test_a_report_of_nothing(tmp_path, capsys):
    assert "there is no folder" in tiny.refused(capsys, ["report", str(tmp_path / "no")])
    assert "holds no result" in tiny.refused(capsys, ["report", str(tmp_path)])
    (tmp_path / "bad.json").write_text("{")
    assert "bad.json is not JSON" in tiny.refused(capsys, ["report", str(tmp_path)])


def test_other_files_keep_all_that_can_be_shown():
    found = report.sections({"a.json": [{"x": 1.25}, {"y": "z"}], "b.json": {"n": None}})
    assert [part.title for part in found] == ["a.json", "b.json"]
    assert found[0].tables[0].rows == [["0", "1.25", ""], ["1", "", "z"]] and found[1].tables[
        0
    ].rows == [["n", "None"]]


def test_a_number_that_two_files_hold_is_listed_once():
    bound = {"name": "NELBO", "nats": 1.5, "standard_error": 0.1, "perplexity": 4.5}
    bound |= {"tokens": 9, "estimator": "x", "hyperschedule": "Flat(4)", "process": "Absorbing()"}
    other = bound | {"nats": 1.6}
    results = {"a.json": {"bounds": [bound]}, "b.json": {"bounds": [bound, other]}}
    (table,) = report_sections.bounds(results).tables
    assert [row[0] for row in table.rows] == ["a.json", "b.json"]
    assert [row[2].split()[0] for row in table.rows] == ["1.5000", "1.6000"]
