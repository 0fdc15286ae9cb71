"""``holdfast diagnose`` as a person and a script meet it."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.core.errors import InputError
from holdfast.report.view.headline import EVIDENCE_NAMES

TURNS = "epoch,loss,val_loss\n" + "".join(
    f"{e},{1 / (e + 1):.4f},{v}\n"
    for e, v in enumerate([1.0, 0.8, 0.65, 0.6, 0.63, 0.68, 0.74, 0.8, 0.86, 0.92])
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(TURNS, "utf-8")
    return path


class Done:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def diagnose(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: object) -> Done:
        words = ["holdfast", "diagnose", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            run()
        said = capsys.readouterr()
        return Done(int(left.value.code or 0), said.out, said.err)

    return call


def test_json_is_one_document_as_the_contract_says(diagnose: Any, log: Path) -> None:
    done = diagnose(log, "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert found["schema"] == 1
    assert found["source"] == "csv"
    assert found["best_step"] == 3
    assert isinstance(found["best_step"], int)
    assert found["series"] == {"train": "loss", "valid": "val_loss"}
    assert found["points"] == 10
    verdict = found["verdict"]
    assert set(verdict) == {
        "label",
        "since_step",
        "confidence",
        "cause",
        "evidence",
        "because",
        "remedies",
        "harm",
    }
    assert (verdict["label"], verdict["since_step"]) == ("overfit", 4)
    assert {tuple(e) for e in verdict["evidence"]} == {("name", "value", "low", "high", "at_step")}
    assert verdict["remedies"][0]["set"] == ["train.epochs=4"]


def test_a_verdict_that_was_named_exits_3(diagnose: Any, log: Path) -> None:
    done = diagnose(log, "--json", "--fail-on", "overfit")
    assert (done.code, json.loads(done.out)["verdict"]["label"]) == (3, "overfit")
    assert "the verdict is overfit (--fail-on), so the exit code is 3" in done.err
    assert diagnose(log, "--fail-on", "memorizing").code == 0
    assert diagnose(log, "--fail-on", "overfitted").code == 2


def test_stopping_at_the_best_epoch_would_have_saved_the_rest(diagnose: Any, log: Path) -> None:
    """Epochs counted from 0: the best is the fourth of ten."""
    assert json.loads(diagnose(log, "--json").out)["saved"] == {
        "positions": 6,
        "share": 0.6,
        "seconds": None,
    }
    assert "6 epochs (60 % of the run)" in diagnose(log).out


def test_the_terminal_shows_verdict_chart_and_remedies_in_80_columns(
    diagnose: Any, log: Path
) -> None:
    done = diagnose(log)
    assert done.out.startswith("overfit since epoch 4")
    assert "▲ best 3" in done.out
    assert "█ val_loss" in done.out
    assert "--set train.epochs=4" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert "\x1b" not in done.out
    assert "val_loss" in done.err
    assert max(map(len, done.err.splitlines())) <= 80


def test_evidence_has_names_for_readers_and_advice_does_not_contradict_the_reason(
    diagnose: Any, tmp_path: Path
) -> None:
    """It ends 6 % above its lowest value, and varies by 10 or by 30 %."""
    for highest, helps in ((1.1, True), (1.3, False)):
        valid = [*[1.0, highest] * 5, 1.0, 1.06]
        rows = "".join(f"{e},{1 / (e + 1):.4f},{loss}\n" for e, loss in enumerate(valid))
        path = tmp_path / f"{highest}.csv"
        path.write_text(f"epoch,loss,val_loss\n{rows}", "utf-8")
        found = json.loads(diagnose(path, "--json").out)["verdict"]
        named = {one["name"] for one in found["evidence"]} - {"finite_evaluations"}
        assert named <= {*EVIDENCE_NAMES}
        assert ("evaluate more often" in str(found["remedies"])) is helps
        assert ("would not decide it" in found["because"]) is not helps
        shown = diagnose(path).out
        assert all(EVIDENCE_NAMES[name] in shown for name in named)


def test_the_chart_has_colours_on_a_terminal_unless_the_user_wants_none(
    diagnose: Any, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in diagnose(log).out
    monkeypatch.setenv("NO_COLOR", "1")
    plain = diagnose(log).out
    assert "█ val_loss" in plain
    assert "\x1b" not in plain


def test_every_real_log_fits_80_columns(diagnose: Any, shared_data: Path) -> None:
    for path in sorted((shared_data / "trainer_states").glob("*.json"))[::2]:
        done = diagnose(path)
        assert done.code == 0
        assert max(map(len, done.out.splitlines())) <= 80


def test_a_named_series_is_used(diagnose: Any, log: Path) -> None:
    found = json.loads(diagnose(log, "--set", "valid=loss", "--json").out)
    assert found["series"]["valid"] == "loss"


def test_the_report_is_one_file_that_asks_for_nothing(
    diagnose: Any, log: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.html"
    assert diagnose(log, "--html", target).code == 0
    page = target.read_text("utf-8")
    assert "default-src 'none'" in html.unescape(page)
    assert "The run overfits." in page
    assert "best: epoch 3" in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    again = tmp_path / "again.html"
    diagnose(log, "--html", again)
    assert again.read_text("utf-8") == page


def test_names_from_a_log_are_escaped_in_the_report(diagnose: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(TURNS.replace("val_loss", "val_<script>_loss"), "utf-8")
    diagnose(path, "--html", tmp_path / "out.html")
    assert "val_<script>" not in (tmp_path / "out.html").read_text("utf-8")


@pytest.mark.parametrize("content", ["", "hello\n", "\x00\x01", "epoch,colour\n1,red\n"])
def test_what_is_no_log_exits_2_and_says_what_a_log_is(
    diagnose: Any, content: str, tmp_path: Path
) -> None:
    path = tmp_path / "thing.csv"
    path.write_text(content, "utf-8")
    done = diagnose(path, "--json")
    assert done.code == 2
    assert done.out == ""
    assert "trainer_state.json" in done.err
    assert "Traceback" not in done.err


def test_a_missing_path_an_unknown_setting_and_a_missing_folder_exit_2(
    diagnose: Any, log: Path, tmp_path: Path
) -> None:
    assert diagnose(tmp_path / "no.csv").code == 2
    assert diagnose(log, "--set", "valid=nothing").code == 2
    assert diagnose(log, "--set", "train.epochs=3").code == 2
    assert diagnose(log, "--html", tmp_path / "no" / "x.html").code == 2


def trainer_state(folder: Path, evaluated: list[float], right: list[float]) -> Path:
    """A state of the Hugging Face Trainer: 200 evaluation rows, by seconds times rows a second."""
    history: list[dict[str, object]] = []
    for epoch, (loss, share) in enumerate(zip(evaluated, right, strict=True), 1):
        history += [
            {"epoch": epoch, "step": 20 * epoch, "loss": 1.2 * 0.55**epoch},
            {
                "epoch": epoch,
                "step": 20 * epoch,
                "eval_loss": loss,
                "eval_accuracy": share,
                "eval_runtime": 0.8,
                "eval_samples_per_second": 250.0,
            },
        ]
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"max_steps": 200, "log_history": history}), "utf-8")
    return path


RISES = [1.0, 0.8, 0.65, 0.6, 0.63, 0.68, 0.74, 0.8, 0.86, 0.92]
FALLS = [1.0, 0.84, 0.74, 0.68, 0.64, 0.61, 0.58, 0.56, 0.54, 0.52]
RIGHT = [0.6, 0.65, 0.7, 0.72, 0.74, 0.75, 0.75, 0.75, 0.75, 0.75]


def test_a_transformers_log_gets_remedies_in_the_words_of_its_trainer(
    diagnose: Any, tmp_path: Path
) -> None:
    path = trainer_state(tmp_path, RISES, RIGHT)
    found = json.loads(diagnose(path, "--json").out)
    assert (found["verdict"]["label"], found["valid_rows"]) == ("overfit", 200)
    first = found["verdict"]["remedies"][0]
    assert first["set"] == ["train.epochs=4"]
    assert "TrainingArguments(num_train_epochs=4, " in first["do"]
    shown = diagnose(path, "--html", tmp_path / "out.html").out
    assert "TrainingArguments(num_train_epochs=4" in " ".join(shown.split())
    assert "--set train" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "TrainingArguments(num_train_epochs=4" in (tmp_path / "out.html").read_text("utf-8")


def test_what_stopping_saves_never_stands_above_training_longer(
    diagnose: Any, tmp_path: Path
) -> None:
    """The best evaluation is the last but one, and the loss still falls."""
    path = tmp_path / "log.csv"
    rows = [f"{e},{v + 0.02},{v}" for e, v in enumerate([*FALLS[:9], FALLS[8] + 0.002])]
    path.write_text("epoch,loss,val_loss\n" + "\n".join(rows) + "\n", "utf-8")
    shown = diagnose(path).out
    assert shown.startswith("learning")
    assert "train longer" in shown
    assert "Stopping there" not in shown
    assert json.loads(diagnose(path, "--json").out)["saved"] is None


def test_98_per_cent_on_training_rows_and_75_on_validation_is_said_by_every_kind_of_log(
    diagnose: Any, tmp_path: Path
) -> None:
    flat = [0.95, 0.8, 0.74, 0.71, 0.7, 0.695, 0.69, 0.69, 0.69, 0.69]
    known = [0.62, 0.74, 0.82, 0.88, 0.92, 0.94, 0.96, 0.97, 0.98, 0.98]
    for valid, label in ((flat, "memorizing"), (RISES, "overfit")):
        for name in ("val_accuracy", "eval_accuracy", "val_acc"):
            columns = {
                "loss": [0.9 * 0.7**e for e in range(10)],
                "val_loss": valid,
                "accuracy": known,
                name: RIGHT,
            }
            rows = [
                dict(zip(["epoch", *columns], (e, *values), strict=True))
                for e, values in enumerate(zip(*columns.values(), strict=True))
            ]
            table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
            table.write_text(
                "\n".join([",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]),
                "utf-8",
            )
            lines.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            for path in (table, lines):
                assert json.loads(diagnose(path, "--json").out)["verdict"]["label"] == label
                assert "98.0 % on training rows and 75.0 % on validation" in " ".join(
                    diagnose(path).out.split()
                )


def test_the_python_door_gives_the_same_verdict(log: Path) -> None:
    verdict = holdfast.diagnose(log)
    assert (verdict.label, verdict.since_step) == ("overfit", 4)
    assert holdfast.diagnose(log, valid="loss").label != "overfit"
    with pytest.raises(InputError):
        holdfast.diagnose(log.parent / "nothing")
