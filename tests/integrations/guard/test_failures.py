"""A failure of the guard's own never ends the training that it watches.

Its parts are found by watching a sound run: every function of another module that a hook, the guard
or its engine calls. Each is then made to fail, at its first call or at its last.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import Guard
from holdfast.core.errors import DataError
from holdfast.plugins.trainers import failures
from holdfast.training.journal import Journal

Part = tuple[str, str]
CALLERS = ("plugins/trainers/", "training/engine.py")
# What takes a failure is no part that fails.
TAKES = {failures.__file__, __file__}
SETTINGS = {
    "max_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
}


class Broken(RuntimeError):
    """A defect of the guard's own."""


def part_of(frame: Any) -> Part | None:
    """The function that was just called, where it is a part of the guard."""
    code, caller = frame.f_code, frame.f_back
    ours = "/holdfast/" in code.co_filename and code.co_filename not in TAKES
    if caller is None or not ours or "<" in code.co_name or code.co_flags & inspect.CO_GENERATOR:
        return None
    calling = caller.f_code.co_filename
    if calling == code.co_filename or not any(place in calling for place in CALLERS):
        return None
    return code.co_filename.split("/holdfast/")[-1], code.co_qualname


def watched(act: Callable[[], Any], hear: Callable[[Part], None]) -> Any:
    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and (part := part_of(frame)) is not None:
            hear(part)

    sys.setprofile(profile)
    try:
        return act()
    finally:
        sys.setprofile(None)


def weights(trainer: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in trainer.model.state_dict().values()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def notes(out: Path) -> list[dict[str, Any]]:
    lines = [line for path in out.rglob("events.jsonl") for line in path.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    return [e for e in events if e.get("what", "").startswith("failure of the guard")]


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "last"), [("off", False), ("stop", True)])
def test_whatever_part_fails_the_training_goes_on(
    trainer: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: Any,
    last: bool,
) -> None:
    monkeypatch.setenv("HOLDFAST_DEFECTS", "")
    plain = trainer(out="plain", **SETTINGS)
    plain.train()
    # The state before the first step is put back at the end.
    choose = {"choose": lambda _: 0}
    guard, calls = Guard(policy=policy, log=lambda _: None, **choose), Counter[Part]()
    sound = trainer(guard.callback(), out="sound", **SETTINGS)
    watched(sound.train, lambda part: calls.update([part]))
    assert guard.stopped_because is None
    kept = weights(sound)
    assert same(kept, weights(plain)) == (policy == "off")
    names = {name.rpartition(".")[2] for _, name in calls}
    # Seeing, judging, deciding, writing, keeping, putting back, the result and its page.
    found = {"observe", "judge", "write", "note", "write_result", "write_report", "on_save"}
    assert names >= found | ({"decide", "copy", "load"} if policy == "stop" else set()), names
    assert not notes(tmp_path / "sound")

    for number, part in enumerate(sorted(calls)):
        lines: list[str] = []
        left = [calls[part] if last else 1]

        def fail(seen: Part, part: Part = part, left: list[int] = left) -> None:
            left[0] -= seen == part
            if left[0] == 0:
                raise Broken("made to fail")

        out = f"broken-{number}"
        guard = Guard(policy=policy, log=lines.append, **choose)
        made = trainer(guard.callback(), out=out, **SETTINGS)
        watched(made.train, fail)
        assert made.state.global_step == 2, part
        after = weights(made)
        warned = [line for line in lines if line.startswith("Warning: the guard disabled itself")]
        if not warned:
            # What the guard has another way for: the formula of a loss, which is tried.
            assert part[0].endswith("losses.py"), part
            assert (tmp_path / out / "holdfast" / "report.html").exists()
            assert same(after, kept)
            continue
        (told,) = warned
        assert "made to fail" in told
        (note,) = notes(tmp_path / out)
        assert "made to fail" in note["because"]
        # At the end the best state may be back already, which is what the run was to keep.
        restored = "on_train_end" in told and same(after, kept)
        # Where the generators themselves cannot be put back, training draws other numbers.
        assert same(after, weights(plain)) or restored or part[1] == "set_random_state", part


def test_it_is_told_where_nothing_can_be_written_or_said(
    trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is gone and the caller's own function fails too."""

    def gone(*_: Any, **__: Any) -> None:
        raise OSError("no disk")

    made = trainer(Guard(log=gone).callback(), **SETTINGS)
    monkeypatch.setenv("HOLDFAST_DEFECTS", "")
    monkeypatch.setattr(Journal, "_append", gone)
    made.train()
    assert made.state.global_step == 2
    assert "the guard disabled itself; training continues without it" in capsys.readouterr().err


@pytest.mark.slow
def test_the_next_training_is_watched_again(
    trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, lines = Guard(log=lambda line: lines.append(line)), list[str]()
    made = trainer(guard.callback(), **SETTINGS)
    monkeypatch.setenv("HOLDFAST_DEFECTS", "")
    with monkeypatch.context() as patch:
        patch.setattr("holdfast.plugins.trainers.watch.judge", lambda *_: 1 / 0)
        made.train()
    assert any("ZeroDivisionError" in line for line in lines)
    made.train()
    assert guard.verdict is not None
    assert [look.step for look in guard.history] == [0, 1, 2]
    assert guard.folder is not None
    assert (guard.folder / "report.html").exists()


def test_wrong_use_is_refused_before_the_first_step(trainer: Callable[..., Any]) -> None:
    made = trainer(Guard(log=lambda _: None).callback(), eval_strategy="no", eval_dataset=None)
    with pytest.raises(DataError, match="no evaluation rows"):
        made.train()
    assert made.state.global_step == 0
