"""The page and the card of a run whose model writes text."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.card import write_card
from holdfast.report.page import write_report

CLASSIFIER = {"confusion", "classes", "calibration", "hardest"}


def score(value: float) -> dict[str, Any]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "level": 0.95}


def row(n: int, **texts: str | None) -> dict[str, Any]:
    made = {
        "source": f"source {n}",
        "reference": f"reference {n}",
        "generated": f"written {n}",
        "untuned": f"before {n}",
    }
    return {"row": n, **made, **texts}


def writes(result: dict[str, Any]) -> None:
    result |= {"task": "seq2seq", "classes": None, "hardest": None, "careless": None}
    for part in ("test", "valid", "train_probe"):
        result[part] = {"n": 60, "metrics": {"perplexity": score(12.5), "loss": score(2.5)}}
    before = {"n": 60, "metrics": {"perplexity": score(31.25), "loss": score(3.4)}}
    result["baseline"] = {
        "what": "untuned model",
        "test": before,
        "all": [{"what": "untuned model", "test": before}],
        "comparison": {
            "metric": "loss",
            "difference": {"value": -0.9, "low": -1.0, "high": -0.8, "level": 0.95},
            "p_value": 0.0001,
            "because": "Of 60 rows, 58 …",
        },
    }
    counts = {"n": 30, "training_answer": 7, "empty": 2}
    result["generations"] = {
        "settings": {"beams": 4},
        "meaning": {"training_answer": "identical to a training target"},
        "scores": {"test": {"rouge_l": score(0.321)}, "test_untuned": {"rouge_l": score(0.123)}},
        "counts": {"train": counts, "test": counts | {"training_answer": 5}},
        "test": [row(n) for n in range(7)],
        "train": [row(100, generated="<b>reference 100</b>")],
    }
    result["division"]["per_class"] = None


@pytest.fixture
def run(runs: ModuleType, tmp_path: Path) -> Path:
    made: Path = runs.make_run(tmp_path / "run", classes=3, edit=writes)
    return made


def test_classification_only_sections_are_absent(run: Path, read_page: Any) -> None:
    html = write_report(run).read_text("utf-8")
    assert 'section id="generations"' in html
    for name in CLASSIFIER:
        assert f'section id="{name}"' not in html


def test_a_classifiers_page_has_no_generations(runs: ModuleType, tmp_path: Path) -> None:
    html = write_report(runs.make_run(tmp_path / "run")).read_text("utf-8")
    assert 'section id="generations"' not in html


def test_the_headline_is_perplexity_beside_the_untuned_model_and_rouge(
    run: Path, read_page: Any
) -> None:
    text = read_page(write_report(run)).text
    assert "the perplexity is 12.500; that of the untuned model is 31.250." in text
    assert "ROUGE-L of the generated texts is 0.321, that of the base model 0.123." in text
    assert "The fine-tuned model is significantly better than the base model." in text


def test_texts_and_counts_of_both_sides_are_shown_and_escaped(run: Path, read_page: Any) -> None:
    page = write_report(run)
    text = read_page(page).text
    for n in range(7):
        assert f"written {n}" in text
        assert f"before {n}" in text
    assert "identical to a training target" in text
    assert "with 4 beams" in text
    assert "<b>reference 100</b>" not in page.read_text("utf-8")


def test_a_worse_fine_tune_is_called_worse(
    runs: ModuleType, tmp_path: Path, read_page: Any
) -> None:
    def edit(result: dict[str, Any]) -> None:
        writes(result)
        result["baseline"]["comparison"]["difference"] |= {"value": 0.9, "low": 0.8, "high": 1.0}

    text = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "The fine-tuned model is significantly worse than the base model." in text


def test_the_card_speaks_of_texts(run: Path) -> None:
    card = write_card(run).read_text("utf-8")
    assert "pipeline_tag: text2text-generation" in card
    assert "AutoModelForSeq2SeqLM" in card
    assert "classes" not in card
