"""A run's own files: read with their types checked, held against the seal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import RunError
from holdfast.core.run_files import (
    check_files,
    check_model,
    file_digest,
    model_files,
    read_events,
    read_result,
    reseal_result,
    result_digest,
    seal_folder,
    seal_model,
    seal_result,
)

RESULT = {
    "schema": 1,
    "task": "text-classification",
    "classes": ["a", "b"],
    "best_step": 3,
    "test": {"n": 9, "metrics": {"accuracy": {"value": 0.5, "low": None, "high": None}}},
    "verdict": {"label": "healthy", "because": "x", "confidence": 0.5, "remedies": []},
}


def run_with(folder: Path, seal: bool = True, **changed: Any) -> Path:
    (folder / "model" / "parts").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "README.md", "parts/a.jinja", ".hidden"):
        (folder / "model" / name).write_text(f"of {name}")
    (folder / "recipe.yaml").write_text("seed: 0\n")
    (folder / "events.jsonl").write_text('{"event": "note", "step": 0, "what": "x"}\n')
    result = {**RESULT, **changed}
    told = seal_result(folder, result, seal_model(folder)) if seal else result
    (folder / "result.json").write_text(json.dumps(told))
    return folder


def test_the_marks_are_those_of_sha256sum(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    data = (run / "model" / "config.json").read_bytes()
    wanted = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert file_digest(run / "model" / "config.json") == wanted
    assert read_result(run)["seal"]["files"]["model/config.json"] == wanted


def test_every_file_but_the_card_and_hidden_ones_is_sealed(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    names = ["model/config.json", "model/model.safetensors", "model/parts/a.jinja"]
    assert model_files(run) == names
    assert set(read_result(run)["seal"]["files"]) == {*names, "recipe.yaml", "events.jsonl"}
    check_model(run, read_result(run))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: (m / "config.json").unlink(), "config.json: is missing"),
        (lambda m: (m / "config.json").write_text("of config.jsoN"), "its SHA-256 differs"),
        (lambda m: (m / "config.json").write_text("of"), "its size differs"),
        (lambda m: (m / "vocab.txt").write_text("a"), "vocab.txt: was not there"),
        (lambda m: (m / "parts" / "x.py").write_text("a"), "x.py: was not there"),
        (lambda m: (m / "b.bin").symlink_to("nowhere"), "b.bin: was not there"),
    ],
)
def test_a_model_that_is_not_as_it_was_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    run = run_with(tmp_path)
    change(run / "model")
    with pytest.raises(RunError, match=r"was not there|missing|changed") as caught:
        check_model(run, read_result(run))
    assert said in str(caught.value)
    assert caught.value.remedy


def test_the_card_and_what_no_loader_reads_may_change(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    (run / "model" / "README.md").unlink()
    for name in ("LICENSE", "picture.png", ".gitattributes"):
        (run / "model" / name).write_text("new")
    check_model(run, read_result(run))


def test_files_that_are_added_changed_or_gone(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    result = read_result(run)
    check_files(run, result, ["recipe.yaml", "events.jsonl", "looks.npz"])
    (run / "looks.npz").write_text("x")
    with pytest.raises(RunError, match="was not there"):
        check_files(run, result, ["looks.npz"])
    (run / "recipe.yaml").unlink()
    with pytest.raises(RunError, match="is missing"):
        check_files(run, result, ["never-there.npz", "recipe.yaml"])


def test_a_run_without_a_seal_is_not_checked(tmp_path: Path) -> None:
    run = run_with(tmp_path, seal=False)
    (run / "model" / "config.json").unlink()
    check_model(run, read_result(run))
    check_files(run, read_result(run), ["recipe.yaml"])


def test_the_result_itself_is_held_against_its_mark(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    told = json.loads((run / "result.json").read_text())
    assert told["seal"]["result"] == result_digest(RESULT)
    told["test"]["metrics"]["accuracy"]["value"] = 0.6
    (run / "result.json").write_text(json.dumps(told))
    with pytest.raises(RunError, match="was changed since the run ended"):
        read_result(run)
    (run / "result.json").write_text(json.dumps(reseal_result(told)))
    assert read_result(run)["test"]["metrics"]["accuracy"]["value"] == 0.6
    del told["seal"]
    (run / "result.json").write_text(json.dumps(told))
    assert read_result(run) == told
    assert reseal_result(told) == told


ODD = ["1", '"x"', "null", "[1]", "1" + "0" * 400, "1e999", "NaN", "[" * 900 + "]" * 900, "true"]
PLACES = [
    ("test",),
    ("test", "n"),
    ("test", "metrics"),
    ("test", "metrics", "accuracy", "value"),
    ("verdict",),
    ("verdict", "label"),
    ("verdict", "confidence"),
    ("verdict", "remedies"),
    ("best_step",),
    ("classes",),
    ("schema",),
]
FITS = {
    ("best_step", "1"),
    ("best_step", "null"),
    ("test.n", "1"),
    ("classes", "null"),
    ("verdict.label", '"x"'),
    ("schema", "1"),
    ("verdict.confidence", "1"),
    ("test.metrics.accuracy.value", "1"),
    ("test.metrics.accuracy.value", "null"),
    ("test.metrics", "null"),
}


@pytest.mark.parametrize("place", PLACES)
def test_another_type_is_refused_with_its_place(tmp_path: Path, place: tuple[str, ...]) -> None:
    run = run_with(tmp_path, seal=False)
    for odd in ODD:
        told: Any = json.loads(json.dumps(RESULT))
        inner = told
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = "@"
        (run / "result.json").write_text(json.dumps(told).replace('"@"', odd))
        if (".".join(place), odd) in FITS:
            read_result(run)
            continue
        with pytest.raises(RunError, match=r"result\.json") as caught:
            read_result(run)
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"\0" * 9, b"{}", b"1"])
def test_what_is_no_result_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "result.json").write_bytes(data)
    with pytest.raises(RunError, match=r"result\.json"):
        read_result(tmp_path)


def test_what_is_no_file_is_refused_and_never_opened(tmp_path: Path) -> None:
    import os

    path = tmp_path / "result.json"
    for make in (path.mkdir, lambda: path.symlink_to(path.name), lambda: os.mkfifo(path)):
        make()
        with pytest.raises(RunError, match=r"result\.json"):
            read_result(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(RunError, match="is missing"):
        read_result(tmp_path)


def test_a_torn_last_line_of_the_events_is_passed_over_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = '{"event": "snapshot", "step": 1, "valid_loss": 0.5}\n'
    path.write_text(whole + '{"event": "snap')
    assert [line["step"] for line in read_events(path, partial_end=True)] == [1]
    with pytest.raises(RunError, match="line 2"):
        read_events(path)
    path.write_text('{"event": "snap\n' + whole)
    with pytest.raises(RunError, match="line 1"):
        read_events(path, partial_end=True)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1}',
        "[]",
        '{"event": "note", "step": "a"}',
        "3",
        '{"event": 1}',
        '{"event": "snapshot"}',
        '{"event": "snapshot", "step": "1"}',
        '{"event": "snapshot", "step": 1e308}',
        '{"event": "snapshot", "step": 1, "valid_metrics": [1]}',
        '{"event": "snapshot", "step": 1, "valid_metrics": {"accuracy": "x"}}',
        '{"event": "snapshot", "step": 1, "valid_loss": 1e999}',
        '{"event": "verdict", "step": 1, "label": "healthy", "because": "", "confidence": "x"}',
        '{"event": "verdict", "step": 1, "label": 3, "because": "", "confidence": 1}',
    ],
)
def test_an_event_of_another_type_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "note", "step": 0, "what": "a"}\n' + line + "\n")
    with pytest.raises(RunError, match=r"events\.jsonl, line 2"):
        read_events(path)


def test_the_base_of_an_adapter_is_sealed_too(tmp_path: Path) -> None:
    from holdfast.contract.run_folder import model_of

    base, run = tmp_path / "base", tmp_path / "run"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "notes.md"):
        (base / name).write_text(name)
    (run / "model").mkdir(parents=True)
    told = json.dumps({"base_model_name_or_path": str(base)})
    (run / "model" / "adapter_config.json").write_text(told)
    (run / "recipe.yaml").write_text("seed: 0\n")
    seal = seal_result(run, RESULT, seal_model(run), seal_folder(base))
    (run / "result.json").write_text(json.dumps(seal))
    assert set(seal["seal"]["base"]) == {"config.json", "model.safetensors"}
    assert model_of(run) == run / "model"
    (base / "notes.md").write_text("other")
    model_of(run)
    (base / "model.safetensors").write_text("model.safetensorz")
    with pytest.raises(RunError, match="since the adapter was trained on it"):
        model_of(run)
