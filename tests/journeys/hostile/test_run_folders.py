"""Finished runs whose files were damaged, changed or swapped: each command refuses them with the
file's name, or gives the very numbers of the sound run."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.api.trained_run import TrainedRun
from holdfast.core.errors import InputError, RunError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.report.card import write_card
from holdfast.report.page import write_report

Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("rows") / "new.csv", marked_rows(24, seed=9))
    return path


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def older(run: Path) -> Path:
    """The run as an older version left it: without a seal."""
    path = run / "result.json"
    told = json.loads(path.read_text("utf-8"))
    del told["seal"]
    path.write_text(json.dumps(told))
    return run


def refused(done: Any, name: str) -> None:
    assert done.code == 2, (done.code, done.out, done.err)
    assert done.out == ""
    assert "Traceback" not in done.err
    # What was decided before stands above it.
    error = done.err[done.err.index("holdfast: ") :]
    assert name in error
    assert len(error.strip().splitlines()) <= 2


MODELS: dict[str, tuple[str, Damage]] = {
    "no tokenizer": ("tokenizer.json", lambda m: (m / "tokenizer.json").unlink()),
    "another tokenizer": (
        "tokenizer.json",
        lambda m: (m / "tokenizer.json").write_text(
            (m / "tokenizer.json").read_text().replace("w11", "w12").replace("w13", "w11")
        ),
    ),
    "no settings of it": (
        "tokenizer_config.json",
        lambda m: (m / "tokenizer_config.json").unlink(),
    ),
    "a bit of the weights": ("model.safetensors", lambda m: flip(m / "model.safetensors", -9)),
    "cut weights": ("model.safetensors", lambda m: cut(m / "model.safetensors")),
    "classes swapped": (
        "config.json",
        lambda m: (m / "config.json").write_text(
            (m / "config.json").read_text().replace('"0": "no"', '"0": "yes"')
        ),
    ),
    "a vocabulary": ("vocab.txt", lambda m: (m / "vocab.txt").write_text("a\nb\n")),
    "an adapter": ("adapter_config.json", lambda m: (m / "adapter_config.json").write_text("{}")),
    "a folder": (
        "config.json",
        lambda m: ((m / "config.json").unlink(), (m / "config.json").mkdir()),
    ),
    "a loop": (
        "config.json",
        lambda m: ((m / "config.json").unlink(), (m / "config.json").symlink_to("config.json")),
    ),
}


def flip(path: Path, place: int, bit: int = 5) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.mark.slow
@pytest.mark.parametrize("damage", sorted(MODELS))
def test_a_changed_model_answers_nothing(holdfast: Any, run: Path, rows: Path, damage: str) -> None:
    name, change = MODELS[damage]
    change(run / "model")
    refused(holdfast("evaluate", run, rows), f"model/{name}")
    refused(holdfast("predict", run, rows), f"model/{name}")
    opened = TrainedRun(run)
    for use in (
        lambda: opened.model,
        lambda: opened.predict("w1 good"),
        lambda: opened.predict_proba(["w1"]),
        lambda: opened.evaluate(rows),
    ):
        with pytest.raises(RunError, match=name):
            use()


def test_a_sound_run_answers_and_its_card_may_be_edited(
    holdfast: Any, run: Path, rows: Path
) -> None:
    before = holdfast("evaluate", run, rows, "--json")
    (run / "model" / "README.md").write_text("Mine.\n")
    (run / "model" / "LICENSE").write_text("Mine.\n")
    (run / "report.html").unlink()
    after = holdfast("evaluate", run, rows, "--json")
    assert (before.code, after.code) == (0, 0)
    assert json.loads(after.out) == json.loads(before.out)


OLDER = ["no tokenizer", "cut weights", "a folder", "an adapter"]


@pytest.mark.parametrize("damage", OLDER)
def test_of_an_older_run_what_loaders_pass_over_is_an_error_too(
    holdfast: Any, run: Path, rows: Path, damage: str
) -> None:
    MODELS[damage][1](older(run) / "model")
    refused(holdfast("evaluate", run, rows), "run")
    refused(holdfast("predict", run, rows), "run")


def test_an_older_run_says_that_it_is_not_checked(holdfast: Any, run: Path, rows: Path) -> None:
    sound = holdfast("evaluate", run, rows, "--json")
    assert "not checked" not in sound.err
    done = holdfast("evaluate", older(run), rows, "--json")
    assert done.code == 0
    assert "model files: not checked" in done.err
    assert json.loads(done.out) == json.loads(sound.out)
    assert "not checked" in holdfast("predict", run, rows).err
    assert "was removed" in holdfast("report", run).err
    with pytest.warns(UserWarning, match="not checked"):
        TrainedRun(run).predict("w1 good")


FILES: dict[str, Damage] = {
    "cut": cut,
    "cut early": lambda p: cut(p, 0.02),
    "flipped": lambda p: flip(p, len(p.read_bytes()) // 3),
    "empty": lambda p: p.write_bytes(b""),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a loop": lambda p: (p.unlink(), p.symlink_to(p.name)),
    "null": lambda p: p.write_text("null"),
    "a number": lambda p: p.write_text("1" + "0" * 400),
    "deep": lambda p: p.write_text("[" * 100_000 + "]" * 100_000),
    "a pipe": lambda p: (p.unlink(), os.mkfifo(p)),
}
# Where nothing says what the file should be, these are refused by the same lines as the others.
SAME = ("cut early", "empty", "null")
READ = {
    "result.json": ("report", "diagnose", "evaluate", "predict"),
    "recipe.yaml": ("report", "evaluate", "predict"),
    "events.jsonl": ("report", "diagnose"),
    "looks.npz": ("diagnose",),
    "predictions.parquet": ("report",),
    "splits.parquet": ("report", "evaluate"),
    "examples.parquet": ("report",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(READ))
@pytest.mark.parametrize("seal", [True, False])
def test_a_damaged_file_is_named(
    holdfast: Any, run: Path, rows: Path, name: str, seal: bool
) -> None:
    if not seal:
        older(run)
    sound = (run / name).read_bytes()
    for damage, change in FILES.items():
        if not seal and damage in SAME:
            continue
        (run / name).write_bytes(sound)
        change(run / name)
        for command in READ[name]:
            given = (rows,) if command in ("evaluate", "predict") else ()
            done = holdfast(command, run, *given)
            if not seal and done.code == 0:
                # Nothing says what it should be, and it is a sound file of its kind; a log
                # without lines, or with a torn last one, is that of a run that goes on.
                assert damage in ("flipped", "cut"), (damage, command)
                continue
            refused(done, name)
        if (run / name).is_dir():
            (run / name).rmdir()
        else:
            (run / name).unlink()


ODD: list[Any] = [None, "x", -1, True, 1e299, [], {}, [None], {"a": "b"}, "@deep", "@large"]


def dumps(value: Any) -> str:
    told = json.dumps(value).replace('"@large"', "1" + "0" * 400)
    return told.replace('"@deep"', "[" * 900 + "]" * 900)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:2])
        if isinstance(value, list)
        else ()
    )
    for name, inner in items:
        found += places(inner, (*at, name))
    return found


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    value = list(value) if isinstance(value, list) else dict(value)
    value[at[0]] = put(value[at[0]], at[1:], new)
    return value


def works_or_is_refused(done: Any, case: object) -> None:
    assert done.code in (0, 2), (case, done.err)
    assert "Traceback" not in done.err, case
    assert "NaN" not in done.out, case
    assert "Infinity" not in done.out, case
    if done.code == 2:
        assert done.err.startswith("holdfast: "), case


@pytest.mark.slow
def test_values_of_other_types_in_the_result(holdfast: Any, run: Path) -> None:
    sound, random = json.loads((older(run) / "result.json").read_text()), np.random.default_rng(1)
    every = [(at, odd) for at in places(sound) for odd in ODD]
    for case in random.permutation(len(every))[:25]:
        at, odd = every[case]
        (run / "result.json").write_text(dumps(put(sound, at, odd)))
        works_or_is_refused(holdfast("report", run), (at, odd))
        works_or_is_refused(holdfast("diagnose", run, "--json"), (at, odd))


def test_values_of_other_types_in_the_events(holdfast: Any, run: Path) -> None:
    lines, random = (older(run) / "events.jsonl").read_text().splitlines(), np.random.default_rng(2)
    (run / "looks.npz").unlink()
    (run / "result.json").rename(run / "aside.json")
    every = [
        (i, at, odd)
        for i, line in enumerate(lines)
        for at in places(json.loads(line))
        for odd in ODD
    ]
    for case in random.permutation(len(every))[:25]:
        i, at, odd = every[case]
        changed = dumps(put(json.loads(lines[i]), at, odd))
        (run / "events.jsonl").write_text("\n".join([*lines[:i], changed, *lines[i + 1 :], ""]))
        works_or_is_refused(holdfast("diagnose", run), (i, at, odd))


@pytest.mark.slow
def test_looks_of_other_types(holdfast: Any, run: Path) -> None:
    with np.load(older(run) / "looks.npz", allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    sound, random = json.loads(str(arrays["told"])), np.random.default_rng(3)
    every = [(at, odd) for at in places(sound) for odd in ODD]
    for case in random.permutation(len(every))[:20]:
        at, odd = every[case]
        told = dumps(put(sound, at, odd))
        np.savez(run / "looks.npz", **{**arrays, "told": np.array(told)})
        works_or_is_refused(holdfast("diagnose", run, "--json"), (at, odd))
    for name, array in arrays.items():
        for bad in (array.astype(str), array[..., None], np.array(3.0), array.ravel()[:0]):
            np.savez(run / "looks.npz", **{**arrays, name: bad})
            works_or_is_refused(holdfast("diagnose", run, "--json"), name)


@pytest.mark.slow
def test_a_small_file_of_looks_that_unpacks_to_very_much(holdfast: Any, run: Path) -> None:
    with np.load(older(run) / "looks.npz", allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    zeros = np.zeros(20_000_000)
    np.savez_compressed(run / "looks.npz", **arrays, more=zeros)
    assert (run / "looks.npz").stat().st_size < 1_000_000
    refused(holdfast("diagnose", run), "looks.npz")


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_every_file_of_a_run_gets_the_umasks_mode(
    marked_csv: Path, quick: list[str], tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        settings = [f"data.path={marked_csv}", *quick, "train.max_steps=2"]
        train(override(Recipe(), settings), tmp_path / "run")
    finally:
        os.umask(before)
    for path in (tmp_path / "run").rglob("*"):
        usual = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == usual & ~umask, path


def test_what_is_no_run_is_refused_by_every_door(holdfast: Any, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    for what in ("absent", "loop", "empty", rows):
        for command in (("report", what), ("evaluate", what, rows), ("predict", what, rows)):
            done = holdfast(*command)
            assert done.code == 2, done.err
            assert "Traceback" not in done.err
        with pytest.raises(InputError):
            _ = TrainedRun(tmp_path / what).result


def test_whatever_uses_a_runs_model_asks_for_it_by_its_seal() -> None:
    """Of every task: what loads a saved model, but for the scoring of a run that has just saved
    it, takes its folder from ``model_of``. The loaders themselves are in ``models/``."""
    import holdfast

    source = Path(holdfast.__file__).parent
    texts = {
        str(path.relative_to(source)): path.read_text("utf-8")
        for path in sorted(source.rglob("*.py"))
        if not path.is_relative_to(source / "models")
    }
    found = [
        (name, call)
        for name, text in texts.items()
        for call in re.findall(r"\bload_saved\w*\(([^:]*?)[,)\]]", text)
    ]
    used = {(name, call) for name, call in found if call and "Path" not in call}
    asked = {name for name, call in used if call.startswith("model_of(")}
    assert {f"tasks/{name}/answers.py" for name in ("classes", "tags", "lm")} <= asked
    assert {"tasks/seq2seq/task.py", "tasks/images/task.py"} <= asked
    others = {(name, call) for name, call in used if not call.startswith("model_of(")}
    # A folder that a caller in the same file has of ``model_of``, where it is one of a run.
    handed = {
        "analyses/compare/contender.py",
        "analyses/memory/analysis.py",
        "plugins/chat/talk.py",
        "plugins/export/decoder.py",
    }
    assert {name for name in handed if "model_of(" in texts[name]} == handed
    others = {(name, call) for name, call in others if name not in handed}
    assert others <= {(name, "request.run / MODEL") for name, _ in used}


MARKUP = '"><img src=x onerror=alert(1)>\n\n```\n\n<script>alert(2)<script> [a](b) `c'


@pytest.mark.parametrize(
    "places",
    [
        ["seed"],
        ["verdict", "label"],
        ["verdict", "because"],
        ["settings", "data", "path"],
        ["settings", "model", "quant_type"],
        ["model"],
        ["classes", 0],
        ["holdfast"],
        ["created"],
    ],
    ids=str,
)
def test_no_word_of_a_forged_run_is_markup(run: Path, places: list[Any]) -> None:
    path = older(run) / "result.json"
    told = json.loads(path.read_text("utf-8"))
    if "quant_type" in places:
        told["task"] = "causal-lm"
        told["settings"]["model"] |= {"quantize": "4bit", "adapter": {"merge": False}}
    place = told
    for key in places[:-1]:
        place = place[key]
    place[places[-1]] = MARKUP
    path.write_text(json.dumps(told))
    page = write_report(run).read_text("utf-8")
    assert "<img" not in page
    assert page.count("<script") == 1
    body = write_card(run).read_text("utf-8").split("\n---\n", 1)[1]
    # Once the lines that load the model, and what stands in code on one line, are out.
    before, _, after = re.split(r"^```.*$", body, flags=re.MULTILINE)
    words = re.sub(r"(?<!\\)`[^`\n]*`", "", before + after)
    assert re.search(r"(?<!\\)(<(img|script)|\[a)", words) is None, words
