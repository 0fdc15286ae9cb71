"""``holdfast diagnose`` names what people ask about when they see the curves of a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def test_they_are_in_the_document_the_text_and_the_page(tmp_path: Path, holdfast: Any) -> None:
    noise = 0.02 * np.random.default_rng(0).standard_normal(120)
    train = np.repeat([2.0, 1.2, 0.7, 0.4], 30) + noise
    history: list[dict[str, float]] = []
    for step in range(1, 121):
        history.append({"step": step, "epoch": step / 30, "loss": float(train[step - 1])})
        if step % 10 == 0:
            loss = 2 * float(np.exp(-step / 40)) + 0.5
            history.append({"step": step, "epoch": step / 30, "eval_loss": loss})
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history, "global_step": 120, "epoch": 4.0}))
    document = json.loads(holdfast("diagnose", path, "--json").out)
    assert [one["name"] for one in document["patterns"]] == ["stairs"]
    assert document["patterns"][0]["at"] == [31, 61, 91]
    page = tmp_path / "page.html"
    done = holdfast("diagnose", path, "--html", page)
    assert done.code == 0, done.err
    text = done.out
    assert "stairs: loss falls at the ends of 3 epochs" in " ".join(text.split())
    assert "Patterns in the curves" in page.read_text("utf-8")
