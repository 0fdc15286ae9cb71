"""The report as a text: complete, escaped, self-contained, the same each time."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.page import write_report

NB = "\u00a0"
VOID = {"meta", "br", "img", "link", "input", "hr"}
ACTIVE = {"src", "srcset", "poster", "data", "action", "formaction", "background", "style"}


class Page(HTMLParser):
    """Tags with their attributes, the text outside of style and script, and open tags at the
    end (a page that is well nested has none)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace(NB, " ").split())

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.tags if name == tag)


@pytest.fixture(scope="module")
def pages(runs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
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
    return {name: Page(write_report(run)) for name, run in made.items()}


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


def estimates(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], float]]:
    """Every number with an interval in a JSON document, with its path."""
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        return [((*path, key), value[key]) for key in ("value", "low", "high")
                if value[key] is not None]  # fmt: skip
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in estimates(item, (*path, key))]
    return []


ALL = ["two", "six", "many", "hostile", "small", "one-look", "no-look", "bare"]


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_well_nested_and_within_its_size(pages: dict[str, Page], name: str) -> None:
    assert pages[name].open == []
    assert len(pages[name].source.encode()) < 1_500_000


@pytest.mark.parametrize("name", ALL)
def test_the_page_loads_nothing(pages: dict[str, Page], name: str) -> None:
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
    pages: dict[str, Page], name: str
) -> None:
    source = pages[name].source
    policy = next(a["content"] or "" for t, a in pages[name].tags
                  if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")  # fmt: skip
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("name", ALL)
def test_landmarks_headings_and_ids_are_in_order(pages: dict[str, Page], name: str) -> None:
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
def test_the_verdict_stands_first_in_words(pages: dict[str, Page], name: str) -> None:
    page = pages[name]
    order = [a.get("id") for t, a in page.tags if t in ("header", "section")]
    assert order[:2] == ["verdict", "score"]
    assert re.search(r"(Good|Caution|Bad|Unclear): ", page.text)


def test_the_sections_follow_the_promised_order(pages: dict[str, Page]) -> None:
    order = [a.get("id") for t, a in pages["six"].tags if t == "section"]
    assert order == ["score", "learning", "gap", "division", "confusion", "classes", "calibration",
                     "hardest", "findings", "decisions", "timeline", "settings", "facts",
                     "load"]  # fmt: skip


@pytest.mark.parametrize("name", ["two", "six", "small"])
def test_every_number_of_the_result_stands_on_the_page_rounded_once(
    runs: ModuleType, tmp_path: Path, name: str
) -> None:
    sizes = {"two": 2, "six": 6, "small": 3}
    run = runs.make_run(tmp_path / "run", classes=sizes[name], seed=3)
    text = Page(write_report(run)).text
    result = json.loads((run / "result.json").read_text())
    found = [(path, value) for part in ("test", "valid", "train_probe", "baseline", "careless")
             for path, value in estimates(result[part], (part,))]  # fmt: skip
    assert len(found) > 60
    for path, value in found:
        rate = any(word in "".join(path) for word in
                   ("accuracy", "f1", "precision", "recall", "careless"))  # fmt: skip
        if "difference" in path:
            shown = f"{100 * value:+.1f}"
        else:
            shown = f"{100 * value:.1f}" if rate else f"{value:.3f}"
        assert shown in text, path


def test_the_score_and_the_baseline_share_one_sentence(runs: ModuleType, tmp_path: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["test"]["metrics"]["accuracy"] = {
            "value": 0.91249, "low": 0.87651, "high": 0.93849, "level": 0.95}  # fmt: skip
        result["baseline"]["test"]["metrics"]["accuracy"]["value"] = 0.8

    text = Page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "95 % interval 87.7 – 93.8 %" in text
    assert "On 400 test rows" in text
    assert "right answer for 91.2 %; the best baseline, linear probe, 80.0 %." in text


def test_every_decision_finding_and_action_stands_with_its_reason(
    runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run")
    page = Page(write_report(run))
    text = page.text
    result = json.loads((run / "result.json").read_text())
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    for decision in result["decisions"]:
        line = f"<dt>{decision['what']}</dt>.*?{decision['chosen']}.*?{decision['because']}"
        assert re.search(line, page.source), decision
    for event in events:
        if event["event"] in ("note", "action"):
            assert event["because"] in text
    for finding in result["data"]["findings"]:
        assert finding["because"] in text
        assert finding["remedy"] in text


def test_every_look_is_in_the_table_behind_the_curves(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    source = write_report(run).read_text()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    looks = [event for event in events if event["event"] == "snapshot"]
    for look in looks:
        for value in (look["train_loss"], look["valid_loss"], look["refined_loss"]):
            assert f'<td class="n">{value:.3f}</td>' in source
    assert source.count("(kept)</th>") == 1


def test_user_text_is_escaped_everywhere(pages: dict[str, Page], runs: ModuleType) -> None:
    page = pages["hostile"]
    assert page.count("script") == 1
    assert page.count("style") == 1
    assert page.count("img") == 0
    assert html.escape(runs.HOSTILE[0], quote=False) in page.source.replace("&#39;", "'")
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", page.source)
    assert "lone \ufffd surrogate" in page.text
    assert "שלום עולם" in page.text


def test_a_77_class_matrix_is_whole_and_names_every_class(pages: dict[str, Page]) -> None:
    source = pages["many"].source
    table = re.search(r'<table class="matrix compact huge">.*?</table>', source, re.DOTALL)
    assert table is not None
    assert table.group().count('<th scope="row">') == 77
    assert table.group().count("<td") == 77 * 77
    assert table.group().count("<abbr") == 77


def test_too_many_classes_for_a_matrix_still_list_the_confusions(
    runs: ModuleType, tmp_path: Path
) -> None:
    page = Page(write_report(runs.make_run(tmp_path / "run", classes=300, n_test=600)))
    assert 'class="matrix' not in page.source
    assert "Most frequent confusions" in page.text
    assert len(page.source) < 1_500_000


def test_a_number_that_is_undefined_says_why(runs: ModuleType, tmp_path: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["test"]["metrics"]["accuracy"] = runs.undefined("only one class is present")
        result["baseline"]["comparison"]["difference"] = runs.undefined("no rows differ")

    text = Page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "undefined: only one class is present" in text
    assert "it is defined for two classes only" in text
    assert "could not be compared" in text


def test_an_interval_that_is_unreliable_says_so(runs: ModuleType, tmp_path: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["test"]["metrics"]["f1_macro"]["note"] = "unreliable below 100 rows"

    assert "unreliable below 100 rows" in Page(
        write_report(runs.make_run(tmp_path / "run", edit=edit))
    ).text  # fmt: skip


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "words"),
    [
        (0.05, 0.01, 0.09, 0.01, "better than the linear probe"),
        (0.05, 0.01, 0.09, None, "better than the linear probe"),
        (-0.05, -0.09, -0.01, 0.01, "worse than the linear probe"),
        (0.02, -0.01, 0.05, 0.3, "cannot be told apart"),
        (0.02, -0.01, 0.05, None, "cannot be told apart"),
        (0.04, 0.001, 0.09, 0.06, "cannot be told apart"),
    ],
)
def test_the_paired_test_is_put_into_words(
    runs: ModuleType, tmp_path: Path, value: float, low: float, high: float, p: float, words: str
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["baseline"]["comparison"]["difference"].update(value=value, low=low, high=high)
        result["baseline"]["comparison"]["p_value"] = p

    assert words in Page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text


def test_a_run_without_validation_says_so_and_shows_no_gap(pages: dict[str, Page]) -> None:
    assert "There were no validation rows" in pages["small"].text
    assert "The gap is undefined" in pages["small"].text
    assert "there are no validation rows" in pages["small"].text


def test_a_bare_older_run_renders_without_inventing_numbers(pages: dict[str, Page]) -> None:
    text = pages["bare"].text
    assert "there were no test rows" in text
    assert "This run did not record how its rows were divided." in text
    assert "no automatic decisions" in text
    assert not re.search(r"\d %", text)


def test_without_the_blocks_the_confusions_come_from_the_predictions(
    runs: ModuleType, tmp_path: Path
) -> None:
    whole = Page(write_report(runs.make_run(tmp_path / "whole"))).source

    def edit(result: dict[str, Any]) -> None:
        del result["test"]["confusion"], result["hardest"], result["test"]["reliability"]

    older = Page(write_report(runs.make_run(tmp_path / "older", edit=edit))).source
    matrix = re.compile(r'<table class="matrix">.*?</table>', re.DOTALL)
    assert matrix.findall(older) == matrix.findall(whole)
    assert "kept no texts" in older


def test_the_careless_block_appears_only_when_it_was_measured(
    runs: ModuleType, tmp_path: Path
) -> None:
    for careless in (True, False):
        page = Page(write_report(runs.make_run(tmp_path / str(careless), careless=careless)))
        assert ("careless division would have reported" in page.text) is careless


def test_the_same_files_give_the_same_bytes_in_any_folder(runs: ModuleType, tmp_path: Path) -> None:
    first = write_report(runs.make_run(tmp_path / "a")).read_bytes()
    assert write_report(tmp_path / "a").read_bytes() == first
    assert write_report(runs.make_run(tmp_path / "elsewhere" / "b")).read_bytes() == first


def test_an_unknown_verdict_is_shown_as_it_is(runs: ModuleType, tmp_path: Path) -> None:
    page = Page(write_report(runs.make_run(tmp_path / "run", verdict="brand_new")))
    assert "The verdict is “brand_new”." in page.text


def test_every_label_of_the_contract_has_plain_words() -> None:
    from typing import get_args

    from holdfast.core.records import Label
    from holdfast.report.view.headline import PLAIN

    assert set(PLAIN) == set(get_args(Label))
