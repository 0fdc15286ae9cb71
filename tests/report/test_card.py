"""The model card: metadata that the hub's own library reads, and the facts in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from holdfast.report.card import write_card


def split(path: Path) -> tuple[dict[str, Any], str]:
    _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_hub_library_reads_the_scores_of_the_card(runs: ModuleType, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    run = runs.make_run(tmp_path / "run")
    card = hub.ModelCard.load(write_card(run))
    result = json.loads((run / "result.json").read_text())
    found = {r.metric_type: r.metric_value for r in card.data.eval_results}
    metrics = result["test"]["metrics"]
    assert found == {name: metrics[name]["value"] for name in found}
    assert "accuracy" in found
    assert "roc_auc" not in found  # undefined numbers are left out
    assert card.data.language is None
    assert card.data.license is None
    assert card.data.library_name == "transformers"
    assert "holdfast" in card.data.tags


def test_the_interval_stands_beside_the_metric(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    meta, body = split(write_card(run))
    accuracy = json.loads((run / "result.json").read_text())["test"]["metrics"]["accuracy"]
    span = f"{100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}"
    first = meta["model-index"][0]["results"][0]["metrics"][0]
    assert span in first["name"]
    assert span in body.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("model", "loaded", "named"),
    [
        ("org/name", "org/name", "org/name"),
        ("embedded", "embedded", "sentence-transformers/all-MiniLM-L6-v2"),
        ("/srv/model", "/srv/model", None),
        ("./a/b", "./a/b", None),
        ("C:\\models\\b", "C:\\models\\b", None),
        # An adapter that is trained further.
        ("/srv/run/model", "org/name", "org/name"),
        ("/srv/run/model", "/srv/base", None),
    ],
)
def test_only_a_published_name_is_a_base_model(
    runs: ModuleType, tmp_path: Path, model: str, loaded: str, named: str | None
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["model"], result["model_facts"]["name"] = model, loaded

    run = runs.make_run(tmp_path / "run", edit=edit)
    meta, _ = split(write_card(run))
    assert meta.get("base_model") == named


@pytest.mark.parametrize(
    ("model", "named", "licence"),
    [
        ("embedded", "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
        ("/srv/work/my model", "my model", None),
        ("org/name", "org/name", "cc-by-4.0"),
    ],
)
def test_the_base_model_has_its_public_name_and_licence(
    runs: ModuleType, tmp_path: Path, model: str, named: str, licence: str | None
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["model"] = model
        result["model_facts"]["licence"] = licence

    run = runs.make_run(tmp_path / "run", edit=edit)
    _, body = split(write_card(run))
    assert f"- fine-tuned from: {named}" in body
    told = licence or "unknown: see the source"
    assert f"the licence of the base model ({told})" in body.replace("\\", "")
    assert "/srv" not in body


def test_the_answer_stands_first(runs: ModuleType, tmp_path: Path) -> None:
    from holdfast.report.answer.answer import answer

    run = runs.make_run(tmp_path / "run")
    _, body = split(write_card(run))
    found = answer(json.loads((run / "result.json").read_text("utf-8")))
    first, second = [line for line in body.splitlines() if line and not line.startswith("#")][:2]
    assert first.replace("\\", "") == f"**{' '.join(found.headline.split())}**"
    assert second.replace("\\", "") == " ".join(found.advice.split())


def test_the_card_carries_no_rows_and_no_path_of_the_machine(
    runs: ModuleType, tmp_path: Path
) -> None:
    text = write_card(runs.make_run(tmp_path / "run")).read_text()
    assert "/home/somebody" not in text
    assert str(tmp_path) not in text
    assert "alert" not in text


def test_hostile_names_stay_text(runs: ModuleType, tmp_path: Path) -> None:
    _, body = split(write_card(runs.make_run(tmp_path / "run", names=runs.HOSTILE)))
    outside = "".join(part for i, part in enumerate(body.split("```")) if i % 2 == 0)
    assert "<script>" not in outside
    assert "\\<script\\>" in outside


def test_the_table_has_one_cell_a_column(runs: ModuleType, tmp_path: Path) -> None:
    _, body = split(write_card(runs.make_run(tmp_path / "run")))
    table = [line for line in body.splitlines() if line.startswith("|")]
    assert len(table) > 3
    assert {line.strip().count("|") for line in table} == {table[0].count("|")}


def test_three_plain_lines_load_the_model(runs: ModuleType, tmp_path: Path) -> None:
    _, body = split(write_card(runs.make_run(tmp_path / "run")))
    code = body.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 3
    assert "holdfast" not in code
    compile(code, "card", "exec")


def test_a_bare_run_has_a_card_and_the_same_run_the_same_card(
    runs: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/result.json").write_text(json.dumps(runs.bare_result()))
    (tmp_path / "bare/events.jsonl").write_text("")
    meta, _ = split(write_card(tmp_path / "bare"))
    assert "model-index" not in meta
    first = write_card(runs.make_run(tmp_path / "a")).read_bytes()
    assert write_card(runs.make_run(tmp_path / "b")).read_bytes() == first


def test_the_card_says_how_texts_were_treated(runs: ModuleType, tmp_path: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        treat = {"encoding": True, "control": False, "mask": {"only": ["email"]}, "copies": True}
        result["settings"] = {**result.get("settings", {}), "treat": treat}

    _, body = split(write_card(runs.make_run(tmp_path / "run", edit=edit)))
    assert "cleaning steps: encoding, mask)" in body
    _, plain = split(write_card(runs.make_run(tmp_path / "plain")))
    assert "cleaning steps" not in plain


def test_rows_that_were_truncated_or_not_used_are_counted_in_the_card(
    runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    template = result["data"]["findings"][0]
    sentence = "3 of 60 training rows are not used: their first 1,024 tokens contain no token"
    result["data"]["findings"] = [
        {**template, "check": "answer_cut_off", "because": sentence},
        {**template, "check": "personal_data", "because": "2 rows contain an address"},
    ]
    (run / "result.json").write_text(json.dumps(result))
    _, body = split(write_card(run))
    splits = body.partition("## Data splits")[2].partition("## How to load it")[0]
    assert sentence in splits
    assert "contain an address" not in splits
