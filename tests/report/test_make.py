"""Which sections a report has, that it is well made and complete in itself, and that strangers' text stays text."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest
from reports import evaluation, path_points, read, score, search

from loramerge import api
from loramerge.errors import BadOption, NotFound, OutputExists, UnknownName
from loramerge.report.make import report

HOSTILE = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e\x00\ud800"


@pytest.fixture(params=["result", "evaluation", "path", "search", "all"])
def inputs(request, session, sources, write):
    """What can be reported, one after the other and together."""
    made = {
        "result": lambda: api.lego(session, k=2).name,
        "evaluation": lambda: str(write("eval.json", evaluation())),
        "path": lambda: str(write("path.json", path_points())),
        "search": lambda: str(write("tune.json", search(held_out=evaluation()))),
    }
    return [make() for name, make in made.items() if request.param in (name, "all")]


@pytest.mark.parametrize("slides", [False, True])
def test_a_report_is_well_formed(reported, inputs, slides):
    page = reported(*inputs, slides=slides)

    assert page.faults == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("slides", [False, True])
def test_a_report_refers_to_nothing_outside_itself(session, reported, inputs, slides):
    page = reported(*inputs, slides=slides)

    sent_for = [a[name] for _, a in page.elements for name in ("src", "href", "data", "action", "srcset") if name in a]
    assert all(target.startswith("#") for target in sent_for)
    raw = (session.folder / "report.html").read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", raw)


def test_the_same_inputs_give_the_same_bytes(session, inputs):
    made = [report(session, inputs, out=Path(f"{n}.html")).path.read_bytes() for n in range(2)]

    assert made[0] == made[1]


def test_a_lego_result_has_every_section_of_a_result(session, sources, reported):
    made = api.lego(session, k=2)

    page = reported(made.name)

    assert page.headings == [
        "Summary",
        "Lineage of lego-2",
        "What lego-2 kept",
        "Spectra of lego-2",
        "Units of lego-2",
        "Likeness of lego-2",
        "How to reproduce",
    ]
    assert "2 clusters of 6 units" in page.text
    assert "lego-2 is made of 2 adapters of acme/base by lego" in page.text
    assert "loramerge rebuild lego-2" in page.text


def test_a_result_of_another_method_shows_its_own_units_too(session, sources, reported):
    made = api.merge(session, method="tsv", rank="2")

    page = reported(made.name)

    assert "8 units" in page.text
    assert "Truncation left out" in page.text


def test_the_scale_and_the_rules_of_a_merge_are_told(session, sources, reported):
    made = api.merge(session, method="tsv", rank="2", scale=1.5, rules=["*.q:weight.math-lora=0.25"])

    page = reported(made.name)

    assert "by tsv (scale=1.5, rules for modules=1), rank 2" in page.text
    assert "scale 1.5 modules *.q weight of math-lora=0.25 weights elsewhere" in page.text
    assert "null" not in page.text.partition("How to reproduce")[0]


def test_an_evaluation_has_its_sections_and_its_best(write, reported):
    page = reported(write("eval.json", evaluation()))

    assert page.headings == ["Summary", "Scores: eval", "Notes and limits", "How to reproduce"]
    assert "Best over all tasks: tsv x0.5 with 0.889 (0.750–0.850), before lego-8" in page.text
    assert "★ 0.800 0.760–0.840 88.9 % of own" in page.text
    assert "scored on part of the rows (news 50 of 200 and mail 50 of 200)" in page.text


def test_a_source_is_never_the_best_merge(write, reported):
    page = reported(write("eval.json", evaluation()))

    assert "★ 0.900" not in page.text


@pytest.mark.parametrize(
    ("low", "mark", "said"), [(-0.01, "≈ 0.778", "1 of the 1 others are not"), (0.01, "0.778", "all others are worse")]
)
def test_a_merge_not_proven_worse_than_the_best_is_marked(write, reported, low, mark, said):
    found = evaluation()
    found["means"][1] |= {"behind": {"value": 0.11, "low": low, "high": 0.2}}

    page = reported(write("eval.json", found))

    assert mark in page.text
    assert ("≈ 0.778" in page.text) == (mark != "0.778")
    assert f"before lego-8 with 0.778 (0.650–0.750); on the same rows {said}" in page.text


def test_less_is_better_where_the_task_says_so(write, reported):
    found = evaluation()
    found["tasks"][0] |= {"metric": "perplexity", "higher": False}

    page = reported(write("eval.json", found))

    assert "perplexity, less is better" in page.text
    assert "★ 0.700" in page.text


def test_groups_of_tasks_are_reported_apart(write, reported):
    means = [{"candidate": "lego-8", "value": 0.99}, {"candidate": "tsv x0.5", "value": 0.98}]
    group = {"name": "same start", "tasks": ["news"], "means": means}

    page = reported(write("eval.json", evaluation(groups=[group])))

    assert "Best over “same start”: lego-8 with 0.990, before tsv x0.5" in page.text
    assert "Mean over “same start” (news)." in page.text


def test_a_path_shows_its_barrier(write, reported):
    page = reported(write("path.json", path_points()))

    assert "Along the path: path" in page.headings
    assert "Slerp, a to b: a barrier of 0.250 in the mean, at t = 0.50" in page.text


def test_a_search_has_its_course_its_rungs_and_its_winner(write, reported):
    page = reported(write("tune.json", search(held_out=evaluation())))

    assert page.headings[:3] == ["Summary", "Search: tune", "Held-out scores: tune"]
    assert "4 trials in 7.4 of 20.0 passes (1 finished, 1 dropped, 1 failed beside the winner)" in page.text
    assert "3 on 50 rows, 2 on 200 rows" in page.text
    assert "The winner is tsv x0.5, validation 0.900 (0.850–0.950)" in page.text
    assert "Held out, the winner has 0.889" in page.text
    assert "more than there are units" in page.text


def test_a_search_without_held_out_scores_says_so(write, reported):
    page = reported(write("tune.json", search()))

    assert "no held-out score" in page.text


@pytest.mark.parametrize("spelled", ["NaN", "null", "Infinity", "-Infinity", "1e308"])
def test_numbers_that_are_none_are_shown_as_such(write, reported, spelled):
    found = evaluation(scores=[score("lego-8", "news", None)], means=[])
    found["scores"][0].update(value="HERE", low="HERE", high="HERE", own="HERE", normalised="HERE")

    page = reported(write("eval.json", json.dumps(found).replace('"HERE"', spelled)))

    assert "nan" not in page.text.lower().replace("news", "")
    geometry = [v for _, a in page.elements for n, v in a.items() if n in ("x", "y", "cx", "cy", "d", "x1", "x2")]
    assert not any(bad in value for value in geometry for bad in ("nan", "inf", "e+"))
    assert {"NaN": "–", "null": "–", "Infinity": "∞", "-Infinity": "−∞", "1e308": "1.00e+308"}[spelled] in page.text


def test_an_evaluation_and_a_search_of_nothing_are_still_pages(write, reported):
    empty = evaluation(tasks=[], candidates=[], scores=[], means=[], notes=[])

    page = reported(write("eval.json", empty), write("tune.json", search(trials=[], winner=None, validation=None)))

    assert "0 candidates on 0 tasks" in page.text
    assert "0 trials" in page.text


def hostile(value):
    """The same value with every text a stranger's, but for what must be one of a few words."""
    fixed = {"kind", "state"}
    if isinstance(value, dict):
        return {k: v if k in fixed else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{HOSTILE}{value}" if isinstance(value, str) else value


@pytest.mark.parametrize("slides", [False, True])
@pytest.mark.parametrize("make", [evaluation, path_points, search], ids=lambda make: make.__name__)
def test_hostile_texts_stay_texts(write, reported, make, slides):
    page = reported(write("x.json", hostile(make())), slides=slides)

    assert page.faults == []
    assert len(page.named("script")) == slides
    assert not page.named("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert not set("\u202e\x00\ud800") & set(page.text)


def test_hostile_records_stay_texts(session, sources, reported):
    made = api.lego(session, k=2)
    path = made.path / "loramerge.json"
    record = json.loads(path.read_text())
    record["report"] |= {"families": [{"family": HOSTILE, "relative_error": "x", "norm": HOSTILE}, 5], "modules": 7}
    record["report"] |= {"notes": [HOSTILE, {"a": HOSTILE}], "overall": [HOSTILE]}
    record["recipe"] = {"method": HOSTILE, "adapters": [HOSTILE]}
    record["lineage"] |= {"method": HOSTILE, "options": {HOSTILE: [HOSTILE]}, "versions": {HOSTILE: HOSTILE}}
    record["lineage"]["parents"][0] |= {"name": HOSTILE, "path": f"/{HOSTILE}", "licence": HOSTILE}
    path.write_text(json.dumps(record))

    page = reported(made.name, title=HOSTILE)

    assert page.faults == []
    assert not page.named("script")
    assert not page.named("img")
    assert "are not shown: it is not on this machine" in page.text


def test_a_parent_that_has_changed_is_left_out_and_said(session, sources, make_adapter, reported):
    made = api.merge(session, method="tsv", rank="2")
    make_adapter("math-lora", rank=3)

    page = reported(made.name)

    assert "of math-lora are not shown: it is not known to be what was merged" in page.text
    assert "Spectra of tsv-2" in page.headings


def test_without_inputs_the_newest_result_is_meant(session, sources):
    api.lego(session, k=2)
    api.merge(session, rank="1")

    made = report(session)

    assert "Lineage of linear-1" in made.sections
    assert made.path == session.folder / "report.html"


@pytest.mark.parametrize(
    ("out", "error"),
    [("there.html", OutputExists), ("folder", BadOption), ("nowhere/report.html", NotFound)],
)
def test_a_place_for_no_report_is_refused_before_the_work(session, out, error):
    (session.folder / "there.html").write_text("mine")
    (session.folder / "folder").mkdir()

    with pytest.raises(error):
        report(session, ["./not-even-there"], out=Path(out))

    assert (session.folder / "there.html").read_text() == "mine"


def test_what_fails_leaves_the_old_report_and_nothing_else(session, write):
    write("report.html", "old")

    with pytest.raises(UnknownName):
        report(session, ["nobody"], force=True)

    assert [path.name for path in session.folder.iterdir()] == ["report.html"]
    assert (session.folder / "report.html").read_text() == "old"


def test_every_drawing_has_words_for_those_who_do_not_see_it(reported, inputs):
    page = reported(*inputs)

    drawings = [found for found in page.named("svg") if found.get("class") == "plot"]
    assert drawings
    assert all(found["role"] == "img" and len(found["aria-label"]) > 10 for found in drawings)


def test_a_deck_has_all_that_a_page_has(session, reported, inputs):
    page, deck = reported(*inputs), reported(*inputs, slides=True)

    missing = set(page.text.split()) - set(deck.text.split())
    assert missing <= {"Lineage", "tune,"} | {word for word in missing if word.startswith("Scores")}
    assert len(page.named("svg")) == len(deck.named("svg"))


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_stand_out(dark):
    style = (Path(report.__code__.co_filename).parent / "assets" / "page.css").read_text()
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", roots[dark]))

    marks = {name: contrast(colours[name], colours["paper"]) for name in [f"c{n}" for n in range(9)]}
    texts = {
        (ink, paper): contrast(colours[ink], colours[paper])
        for ink, paper in [*product(["ink", "soft", "accent"], ["paper", "panel"]), ("ink", "more"), ("ink", "less")]
    }
    assert all(value >= 3 for value in marks.values()), marks
    assert all(value >= 4.5 for value in texts.values()), texts


def test_read_is_strict_enough_to_see_a_fault(tmp_path):
    (tmp_path / "x.html").write_text("<p><b>words</p></b>")

    assert read(tmp_path / "x.html").faults == ["p", "b"]
