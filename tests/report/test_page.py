"""The report as a text: well made, escaped, self-contained, the same each time."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.contents import report_sections
from holdfast.report.page import PACKAGE, write_report
from holdfast.report.run_files import read_run
from holdfast.report.view import record

ACTIVE = {"src", "srcset", "poster", "data", "action", "formaction", "background", "style"}


@pytest.fixture(scope="module")
def pages(
    read_page: Any, runs: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("pages")
    made = {
        "two": runs.make_run(root / "two", classes=2, verdict="overfit"),
        "six": runs.make_run(root / "six"),
        "many": runs.make_run(root / "many", classes=77, n_test=3080),
        "hostile": runs.make_run(root / "hostile", names=runs.HOSTILE, edit=_hostile(runs)),
        "small": runs.make_run(root / "small", classes=2, n_test=9, looks=3, valid=False),
        "one-look": runs.make_run(root / "one", looks=1),
        "no-look": runs.make_run(root / "none", looks=0),
        "bare": _bare(runs, root / "bare"),
    }
    return {name: read_page(write_report(run)) for name, run in made.items()}


def _bare(runs: ModuleType, run: Path) -> Path:
    run.mkdir()
    (run / "result.json").write_text(json.dumps(runs.bare_result()))
    (run / "events.jsonl").write_text("")
    return run


def _hostile(runs: ModuleType) -> Any:
    bad = runs.HOSTILE[0] + runs.HOSTILE[1]

    def edit(result: dict[str, Any]) -> None:
        result["verdict"]["because"] = result["verdict"]["cause"] = bad
        result["settings"]["data"]["path"] = f"/x/{bad.replace('/', '')}"
        result["model"] = bad
        result["decisions"].append({"what": bad, "chosen": bad, "because": bad})
        result["data"]["findings"][0]["because"] = bad
        result["baseline"]["comparison"]["because"] = bad
        result["baseline"]["what"] = bad
        result["division"]["notes"].append(bad)
        result["versions"][bad] = bad
        result["created"] = bad

    return edit


ALL = ["two", "six", "many", "hostile", "small", "one-look", "no-look", "bare"]


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_well_nested_and_within_its_size(pages: dict[str, Any], name: str) -> None:
    assert pages[name].open == []
    assert len(pages[name].source.encode()) < 1_500_000


@pytest.mark.parametrize("name", ALL)
def test_the_page_loads_nothing(pages: dict[str, Any], name: str) -> None:
    for tag, attributes in pages[name].tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form", "use")
        assert not ACTIVE & attributes.keys()
        assert not any(key.startswith("on") for key in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    styles = "".join(re.findall(r"<style>(.*?)</style>", pages[name].source, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles


@pytest.mark.parametrize("name", ALL)
def test_the_content_policy_allows_exactly_this_style_and_script(
    pages: dict[str, Any], name: str
) -> None:
    source = pages[name].source
    policy = next(
        a["content"] or ""
        for t, a in pages[name].tags
        if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("name", ALL)
def test_landmarks_headings_and_ids_are_in_order(pages: dict[str, Any], name: str) -> None:
    page = pages[name]
    for landmark in ("main", "nav", "footer", "header", "h1"):
        assert page.count(landmark) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for key in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(key, ids[0]) in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


@pytest.mark.parametrize("name", ALL)
def test_answer_and_verdict_stand_first_in_words(pages: dict[str, Any], name: str) -> None:
    page = pages[name]
    order = [a.get("id") for t, a in page.tags if t in ("header", "section")]
    assert order[:2] == ["verdict", "score"]
    assert re.search(r"Verdict(?: on the training)?: ", page.text)
    assert re.search(r"<h1>(Accuracy|ROUGE|No better than|Not measured)", page.source)


def test_the_sections_follow_the_promised_order(pages: dict[str, Any]) -> None:
    order = [a.get("id") for t, a in pages["six"].tags if t == "section"]
    assert order == [
        "score",
        "confusion",
        "classes",
        "calibration",
        "hardest",
        "load",
        "findings",
        "division",
        "learning",
        "gap",
        "decisions",
        "timeline",
        "settings",
        "facts",
        "words",
    ]


def test_each_section_has_a_key_of_its_own_and_a_template_that_is_there() -> None:
    keys = [one.key for one in report_sections()]
    assert len(set(keys)) == len(keys)
    assert all((PACKAGE / one.template).is_file() for one in report_sections() if one.template)
    ranks = [one.reliance.rank for one in report_sections() if one.reliance]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


def test_user_text_is_escaped_everywhere(pages: dict[str, Any], runs: ModuleType) -> None:
    page = pages["hostile"]
    assert page.count("script") == 1
    assert page.count("style") == 1
    assert page.count("img") == 0
    assert html.escape(runs.HOSTILE[0], quote=False) in page.source.replace("&#39;", "'")
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", page.source)
    assert "lone \ufffd surrogate" in page.text
    assert "שלום עולם" in page.text


def test_a_77_class_matrix_is_whole_and_names_every_class(pages: dict[str, Any]) -> None:
    source = pages["many"].source
    table = re.search(r'<table class="matrix compact huge">.*?</table>', source, re.DOTALL)
    assert table is not None
    assert table.group().count('<th scope="row">') == 77
    assert table.group().count("<td") == 77 * 77
    assert table.group().count("<abbr") == 77


def test_a_run_without_validation_says_so_and_shows_no_gap(pages: dict[str, Any]) -> None:
    assert "There were no validation rows" in pages["small"].text
    assert "The generalization gap is undefined" in pages["small"].text
    assert "there are no validation rows" in pages["small"].text


def test_a_bare_older_run_renders_without_inventing_numbers(pages: dict[str, Any]) -> None:
    text = pages["bare"].text
    assert "there were no test rows" in text
    assert "This run did not record its splits." in text
    assert "no automatic decisions" in text
    assert not re.search(r"\d %", text)


def test_the_same_files_give_the_same_bytes_in_any_folder(runs: ModuleType, tmp_path: Path) -> None:
    first = write_report(runs.make_run(tmp_path / "a")).read_bytes()
    assert write_report(tmp_path / "a").read_bytes() == first
    assert write_report(runs.make_run(tmp_path / "elsewhere" / "b")).read_bytes() == first


def test_a_probe_with_a_section_of_its_own_is_no_list_of_raw_numbers(
    runs: ModuleType, tmp_path: Path
) -> None:
    probes = {"memorization": {"auc": {"value": 0.7635}}, "forgetting": {"n": 4}, "other": {"n": 7}}
    run = runs.make_run(tmp_path / "run", edit=lambda result: result.update({"probes": probes}))
    names = [name for name, _ in record.facts(read_run(run))]
    assert [name for name in names if name.startswith("Probe")] == ["Probe: other"]
