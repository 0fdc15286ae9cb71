"""The sections of a model that writes beside its start model, of hostile and sparse runs."""

from __future__ import annotations

import html
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from holdfast.metrics import TEXT_METRICS
from holdfast.report.page import write_report
from holdfast.tasks.generation.judge import MetricJudge
from holdfast.tasks.generation.mark_shares import Marked, outputs_block
from holdfast.tasks.generation.marks import marks
from holdfast.tasks.generation.text_scores import Generated
from holdfast.tasks.generation.token_scores import TokenOutputs
from holdfast.tasks.generation.worth import EXAMPLES, PLAIN, Prompting, worth_block

CURSED = "You idiot, all women are irrational."


def blocks() -> dict[str, Any]:
    n, metric = 40, TEXT_METRICS["rouge_l"]
    rng = np.random.default_rng(0)

    def outputs(more: float) -> TokenOutputs:
        losses = rng.normal(1 + more, 0.1, n)
        return TokenOutputs(np.arange(n), losses, np.full(n, 4), np.ones(n))

    said = [f"<b>answer {i}</b>" for i in range(n)]
    made = Generated(np.arange(n), ["q"] * n, said, [*said[:30], *[CURSED] * 10], ["no"] * n)
    tuned = outputs(0)
    ways = {
        PLAIN: Prompting(outputs(1), tuned, ["no"] * n),
        EXAMPLES: Prompting(why="the rows are <script>plain</script> text"),
    }
    tables = [
        marks(made.sources, made.references, texts, np.ones(n, dtype=bool))
        for texts in (made.texts, ["no"] * n, said)
    ]
    side = Marked("test", np.arange(n), *tables)
    return {
        "worth": worth_block(ways, made, MetricJudge(metric), metric, None),
        "outputs": outputs_block([side], {"flagged": "no classifier is named (probes.classifier)"}),
    }


def page_of(runs: ModuleType, folder: Path, edit: Any) -> str:
    return write_report(runs.make_run(folder, edit=edit)).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    found = re.search(rf'<section[^>]*id="{name}".*?</section>', page, re.DOTALL)
    assert found is not None
    # Words that the page explains are marked.
    return re.sub(r"</?dfn[^>]*>", "", found[0])


def test_both_sections_answer_first_and_hide_what_was_said(
    runs: ModuleType, tmp_path: Path
) -> None:
    page = page_of(runs, tmp_path / "run", lambda result: result.update(blocks()))
    worth, outputs = section(page, "worth"), section(page, "outputs")
    for one, first in ((worth, "Yes: on the test rows"), (outputs, "It got worse")):
        assert first in one
        assert one.index(first) < one.index("<details")
    assert "&lt;script&gt;plain" in worth
    assert "idiot" not in outputs
    assert "irrational" not in outputs
    assert "30, 31, 32" in outputs
    assert "more often" in outputs


def test_loss_and_texts_have_a_line_each_with_the_interval(
    runs: ModuleType, tmp_path: Path
) -> None:
    found = blocks()
    page = page_of(runs, tmp_path / "run", lambda result: result.update(found))
    text = re.sub(r"<[^>]*>", " ", section(page, "worth"))
    assert "Generated texts" in text
    gap = found["worth"]["texts"]["difference"]["zero_shot"]["difference"]
    for value in (gap["value"], gap["low"], gap["high"]):
        assert text.count(f"{value:.3f}") >= 1


def test_a_difference_that_holms_correction_takes_away_is_said_with_both_p_values(
    runs: ModuleType, tmp_path: Path
) -> None:
    """The interval alone would say the opposite of the verdict."""
    gap = {"value": -0.23, "low": -0.45, "high": -0.02}
    comparison = {"metric": "loss", "difference": gap, "test": "paired t-test", "because": "a: b"}

    def edit(result: dict[str, Any]) -> None:
        result["baseline"]["comparison"] = {**comparison, "p_value": 0.038, "p_adjusted": 0.077}

    page = re.sub(r"<[^>]*>", "", page_of(runs, tmp_path / "run", edit))
    assert "is shown" in page
    assert "0.077 after Holm's correction, which decides" in html.unescape(page).replace(
        "\xa0", " "
    )


@pytest.mark.parametrize("name", ["worth", "outputs"])
def test_a_run_without_the_block_has_no_section(
    runs: ModuleType, tmp_path: Path, name: str
) -> None:
    assert f'id="{name}"' not in page_of(runs, tmp_path / "run", lambda result: None)


def test_blocks_with_holes_are_shown_as_far_as_they_go(runs: ModuleType, tmp_path: Path) -> None:
    sparse = {
        "worth": {"because": "Undecided.", "start": {"zero_shot": {"n": 3}}, "win_rate": {}},
        "outputs": {"because": "Nothing.", "shares": [{"mark": "cut", "side": "test", "n": 2}]},
    }
    page = page_of(runs, tmp_path / "run", lambda result: result.update(sparse))
    assert "Undecided." in section(page, "worth")
    assert "Nothing." in section(page, "outputs")
