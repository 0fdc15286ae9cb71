"""What a run shows of itself in a notebook: whole, escaped, alone, and readable in both themes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.snippet import run_snippet

ACTIVE = {"src", "href", "srcset", "action", "onload", "onclick", "style"}


@pytest.fixture(scope="module")
def folders(runs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("snippets")
    bad = runs.HOSTILE[0] + runs.HOSTILE[1]

    def hostile(result: dict[str, Any]) -> None:
        result["verdict"]["because"] = result["model"] = result["stopped_because"] = bad
        result["baseline"]["what"] = bad
        result["settings"]["data"]["path"] = f"/x/{bad.replace('/', '')}"

    return {
        "two": runs.make_run(root / "two", classes=2, verdict="overfit"),
        "hostile": runs.make_run(root / 'a"><b', names=runs.HOSTILE, edit=hostile),
        "small": runs.make_run(root / "small", classes=2, n_test=9, looks=3, valid=False),
        "no-look": runs.make_run(root / "none", looks=0),
    }


def page_of(html: str, read_page: Any, tmp_path: Path) -> Any:
    path = tmp_path / "page.html"
    path.write_text(html, "utf-8")
    return read_page(path)


@pytest.mark.parametrize("name", ["two", "hostile", "small", "no-look"])
def test_it_is_whole_and_asks_for_nothing(
    folders: dict[str, Path], name: str, read_page: Any, tmp_path: Path
) -> None:
    page = page_of(run_snippet(folders[name]), read_page, tmp_path)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "link", "img", "object", "b"}
    assert not [attrs for _, attrs in page.tags if attrs.keys() & ACTIVE]
    assert "url(" not in page.source
    assert "@import" not in page.source


@pytest.mark.parametrize("is_lowest", [True, False])
def test_a_best_checkpoint_without_the_lowest_loss_says_why(
    runs: ModuleType, is_lowest: bool, tmp_path: Path
) -> None:
    folder = runs.make_run(tmp_path / "run")
    evaluations = [
        event
        for event in map(json.loads, (folder / "events.jsonl").read_text("utf-8").splitlines())
        if event.get("refined_loss") is not None
    ]
    ordered = sorted(evaluations, key=lambda one: float(one["refined_loss"]))
    result = json.loads((folder / "result.json").read_text("utf-8"))
    result["best_step"] = ordered[0 if is_lowest else 1]["step"]
    because = "it is the newest checkpoint"
    result["decisions"] = [{"what": "best checkpoint", "chosen": "step", "because": because}]
    (folder / "result.json").write_text(json.dumps(result), "utf-8")
    shown = run_snippet(folder)
    assert f"Best checkpoint: step {result['best_step']}." in shown
    reason = f"The best checkpoint does not have the lowest calibrated loss: {because}."
    assert (reason in shown) != is_lowest


def test_the_report_is_named_from_the_current_folder(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folders["two"]
    monkeypatch.chdir(run.parent)
    assert f"<code>{run.name}/report.html</code>" in run_snippet(run.absolute())


def test_it_says_the_verdict_the_scores_and_the_curves(
    folders: dict[str, Path], read_page: Any, tmp_path: Path
) -> None:
    run = folders["two"]
    result = json.loads((run / "result.json").read_text("utf-8"))
    page = page_of(run_snippet(run), read_page, tmp_path)
    accuracy = result["test"]["metrics"]["accuracy"]
    shown = " ".join(f"{100 * accuracy[end]:.1f}" for end in ("value",))
    assert f"{shown} %" in page.text
    assert f"{100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}" in page.text
    assert "Overfitting" in page.text
    assert " ".join(result["verdict"]["because"].split()) in page.text
    assert str(run / "report.html") in page.text
    events = [json.loads(row) for row in (run / "events.jsonl").read_text("utf-8").splitlines()]
    looks = [event for event in events if event["event"] == "snapshot"]
    curves = [
        attrs["d"]
        for tag, attrs in page.tags
        if tag == "path"
        and "curve" in (attrs.get("class") or "")
        and len(attrs.get("d") or "") > 12
    ]
    # Loss and accuracy, of the train probe and the validation rows, one point a look.
    assert len(curves) >= 4
    assert {len(re.findall("[ML]", d or "")) for d in curves} == {len(looks)}


def test_a_run_without_looks_says_that_it_has_no_curves(folders: dict[str, Path]) -> None:
    shown = run_snippet(folders["no-look"])
    assert "there are no curves" in shown
    assert "<figure" not in shown


def test_two_runs_on_one_page_share_no_id(folders: dict[str, Path]) -> None:
    ids = [re.findall(r'\bid="([^"]+)"', run_snippet(folders[name])) for name in ("two", "small")]
    assert ids[0]
    assert len(set(ids[0])) == len(ids[0])
    assert not set(ids[0]) & set(ids[1])


def test_what_is_no_run_is_said_not_raised(tmp_path: Path, folders: dict[str, Path]) -> None:
    assert "result.json" in run_snippet(tmp_path / "nothing <b>")
    assert "<b>" not in run_snippet(tmp_path / "nothing <b>")


def test_its_colours_are_readable_in_both_themes() -> None:
    """WCAG 2: a text of 4.5 to 1 against the paper, a line of 3 to 1; in light and dark."""
    css = (Path(run_snippet.__code__.co_filename).parent / "templates/snippet.css").read_text()
    pairs = dict(re.findall(r"--(\w+): light-dark\((#\w+, #\w+)\)", css))
    plain = dict(re.findall(r"--(\w+): (#\w{6});", css))
    assert pairs.keys() == plain.keys()
    for name, both in pairs.items():
        light, dark = both.split(", ")
        assert light == plain[name], "a browser without light-dark() sees the light colours"
        if name in ("paper", "line"):
            continue
        least = 3.0 if name in ("train", "valid", "refined") else 4.5
        papers = pairs["paper"].split(", ")
        for ink, paper in ((light, papers[0]), (dark, papers[1])):
            assert contrast(ink, paper) >= least, (name, ink, paper)


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2, from sRGB."""

    def light(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
