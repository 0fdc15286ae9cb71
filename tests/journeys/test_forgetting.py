"""What a run forgets and what holds on to it, as a user has it: two keys of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import DataError, Interrupted, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

SEA = ["the", "old", "grey", "sea", "sang", "to", "ship", "and", "gull", "by", "night"]
SUM = ["two", "and", "five", "make", "seven", "while", "six", "from", "nine", "leave", "three"]


def texts(words: list[str], count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, 9)) for _ in range(count)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "sums.txt"
    path.write_text("\n\n".join(texts(SUM, 60, 0)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def general(rows: Path) -> Path:
    path = rows.parent / "sea.txt"
    path.write_text("\n\n".join(texts(SEA, 60, 1)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def quick_lm(tiny_llama: Path) -> list[str]:
    return [
        "task=causal-lm",
        f"model.name={tiny_llama}",
        "train.max_steps=8",
        "train.learning_rate=3e-3",
        "train.threads=1",
        "train.precision=float32",
        "train.batch_size=8",
        "train.evaluations=4",
        "generate.rows=0",
        "model.max_length=64",
    ]


Go = Callable[..., dict[str, Any]]


@pytest.fixture
def go(rows: Path, quick_lm: list[str]) -> Go:
    def run(folder: Path, *settings: str, **more: Any) -> dict[str, Any]:
        asked = [f"data.path={rows}", *quick_lm, *settings]
        return train(override(Recipe(), asked), folder, **more)

    return run


def looks(run: Path) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text("utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == "snapshot"]


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_general_probe_is_measured_at_every_look_and_changes_nothing(
    go: Go, general: Path, tmp_path: Path
) -> None:
    plain = go(tmp_path / "plain")
    result = go(tmp_path / "run", f"probes.forgetting.data={general}", "probes.forgetting.rows=25")
    assert weights(tmp_path / "run") == weights(tmp_path / "plain")
    told_after = plain["probes"]["forgetting"]
    assert told_after["what"] == "general text"
    assert told_after["n"] == 48
    assert all("general_loss" not in look for look in looks(tmp_path / "plain"))
    told = result["probes"]["forgetting"]
    seen = [look["general_loss"] for look in looks(tmp_path / "run")]
    kept = [look["step"] for look in looks(tmp_path / "run")].index(result["best_step"])
    assert len(seen) >= 3
    assert told["n"] == 25
    assert told["before"]["value"] == pytest.approx(seen[0], rel=1e-6)
    assert told["after"]["value"] == pytest.approx(seen[kept], rel=1e-6)
    assert told["rise"]["value"] == pytest.approx(seen[kept] - seen[0], abs=1e-6)
    assert told["rise"]["low"] < told["rise"]["value"] < told["rise"]["high"]
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Forgetting" in page
    # Without a probe what is said is of the built-in text.
    said = (tmp_path / "plain" / "result.json").read_text("utf-8")
    assert "48 general passages" in said
    assert "48 general passages" not in page


@pytest.mark.slow
def test_replay_learns_general_rows_that_no_look_measures(
    go: Go, general: Path, tmp_path: Path
) -> None:
    both = [f"data.general={general}", "probes.forgetting.rows=20", "train.keep=last"]
    plain = go(tmp_path / "plain", *both)
    told: list[Decision | Finding] = []
    with decisions_to(told.append):
        kept = go(tmp_path / "run", *both, "methods.replay.share=1")
    chosen = {d.what: d.chosen for d in told if isinstance(d, Decision)}
    assert chosen["general-text set"] == "20 rows"
    # Sixty, one of which is repeated or not: what is left after the probe.
    assert int(chosen["general rows"].split()[0]) > 30
    gained = [one["probes"]["forgetting"]["rise"]["value"] for one in (plain, kept)]
    assert gained[1] < gained[0] - 0.05


@pytest.mark.slow
def test_a_killed_run_with_every_guard_ends_to_the_bit_as_it_would_have(
    go: Go, general: Path, tmp_path: Path
) -> None:
    guards = (
        f"data.general={general}",
        "methods.replay.share=0.4",
        "methods.kl_start.weight=0.5",
        "methods.ewc.weight=0.1",
    )

    class Kill:
        name = "kill"

        def step_done(self, run: Any) -> None:
            if run.step == 5:
                raise KeyboardInterrupt

    go(tmp_path / "whole", *guards)
    with pytest.raises(Interrupted):
        go(tmp_path / "run", *guards, listeners=(Kill(),), checkpoint_every_s=0)
    go(tmp_path / "run", *guards, resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    first, second = (
        [look["general_loss"] for look in looks(tmp_path / name)] for name in ("run", "whole")
    )
    assert first == second


@pytest.mark.slow
def test_where_no_file_is_given_the_model_writes_what_it_replays(go: Go, tmp_path: Path) -> None:
    told: list[Decision | Finding] = []
    asked = ("methods.replay.share=0.5", "methods.replay.written=12")
    with decisions_to(told.append):
        result = go(tmp_path / "run", *asked)
    (rows,) = [d for d in told if isinstance(d, Decision) and d.what == "general rows"]
    assert rows.chosen == "12 rows"
    assert "generated by the model before its first step" in rows.because
    assert result["probes"]["forgetting"]["what"] == "general text"
    go(tmp_path / "again", *asked)
    assert weights(tmp_path / "run") == weights(tmp_path / "again")


@pytest.mark.slow
def test_general_rows_that_copy_rows_of_the_run_are_left_out(
    go: Go, rows: Path, general: Path, tmp_path: Path
) -> None:
    """Those held out among them: what is replayed would be learned."""
    both = tmp_path / "both.txt"
    both.write_text(general.read_text("utf-8") + "\n" + rows.read_text("utf-8"), encoding="utf-8")
    told: list[Decision | Finding] = []
    with decisions_to(told.append):
        go(tmp_path / "run", f"data.general={both}", "methods.replay=true")
    (found,) = [f for f in told if isinstance(f, Finding) and f.check == "general_rows"]
    assert found.count >= 60
    assert found.fixed
    lines = [d.chosen for d in told if isinstance(d, Decision) and d.what.startswith("general")]
    assert sum(int(line.split()[0]) for line in lines) <= 60


def test_what_cannot_be_measured_or_replayed_is_refused(
    go: Go, rows: Path, general: Path, marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n\n".join(texts(SEA, 4, 3)) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="to measure forgetting on"):
        go(tmp_path / "a", f"probes.forgetting.data={few}")
    labelled = [f"data.path={marked_csv}", *quick]
    with pytest.raises(RecipeError, match="needs general rows") as caught:
        train(override(Recipe(), [*labelled, "methods.ewc=true"]), tmp_path / "c")
    assert "data.general" in caught.value.remedy
    with pytest.raises(DataError):
        go(tmp_path / "d", f"probes.forgetting.data={tmp_path / 'gone.txt'}")
    for name in "abcd":
        assert not (tmp_path / name / "result.json").exists()


@pytest.mark.slow
def test_a_classifier_is_measured_on_labelled_rows_of_its_classes(
    marked_csv: Path, marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    other = [(f"{text} long ago", label) for text, label in marked_rows()[:40]]
    path = write_csv(tmp_path / "general.csv", other)
    asked = [f"data.path={marked_csv}", *quick, f"data.general={path}", "methods.replay=true"]
    asked = [*asked, "probes.forgetting.rows=15", "methods.kl_start=true"]
    result = train(override(Recipe(), asked), tmp_path / "run")
    assert result["probes"]["forgetting"]["n"] == 15
    wrong = write_csv(tmp_path / "wrong.csv", [(text, f"{label}?") for text, label in other])
    with pytest.raises(DataError, match="not one of the classes of the run"):
        train(override(Recipe(), [*asked, f"data.general={wrong}"]), tmp_path / "wrong")


@pytest.mark.slow
def test_the_built_in_text_is_measured_at_every_look(go: Go, tmp_path: Path) -> None:
    result = go(tmp_path / "run", "probes.forgetting.data=built-in")
    told = result["probes"]["forgetting"]
    # A passage of more tokens than the model reads at once is measured in parts, and is one row.
    assert told["n"] == 48
    seen = [one["general_loss"] for one in looks(tmp_path / "run")]
    assert seen[0] == pytest.approx(told["before"]["value"])
    # The same passages, asked after training alone.
    after = go(tmp_path / "plain")["probes"]["forgetting"]
    assert after["n"] == 48
    for name in ("before", "after", "rise"):
        assert after[name]["value"] == pytest.approx(told[name]["value"], abs=1e-4)
    assert after["because"] == told["because"].replace("general rows", "general passages")
    assert weights(tmp_path / "plain") == weights(tmp_path / "run")


@pytest.mark.slow
def test_a_classifier_says_what_neighbours_it_kept_and_takes_no_built_in_text(
    marked_csv: Path, quick: list[str], tmp_path: Path, capfd: Any
) -> None:
    labelled = [f"data.path={marked_csv}", *quick, "train.epochs=1"]
    result = train(override(Recipe(), labelled), tmp_path / "run")
    assert "examples/s" not in capfd.readouterr().err, "a bar of datasets' own"
    kept = result["probes"]["forgetting"]
    assert kept["what"] == "neighbours"
    assert 0 <= kept["kept"]["low"] <= kept["kept"]["value"] <= kept["kept"]["high"] <= 1
    assert "general texts" in (tmp_path / "run" / "report.html").read_text("utf-8")
    built_in = override(Recipe(), [*labelled, "probes.forgetting.data=built-in"])
    with pytest.raises(RecipeError, match="built-in"):
        train(built_in, tmp_path / "b")
