"""The loop: the drawing, the best state, and every way to end."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import holdfast.training.loop as loop
from holdfast.core.actions import Action, Continue, RollBack, Stop
from holdfast.core.errors import Defect, Interrupted, MachineError, RunError, TrainingError
from holdfast.core.events import EVENTS
from holdfast.core.records import Snapshot, Verdict
from holdfast.training.loop import fit

LOOK = ["snapshot_due", "snapshot_taken"]


def drawing() -> list[tuple[int, str]]:
    """Depth and text of each line of the drawing in the docstring."""
    assert loop.__doc__ is not None
    lines = [line for line in loop.__doc__.splitlines() if re.search("[├└]─", line)]
    return [(re.search("[├└]", line).start(), line.split("─ ", 1)[1]) for line in lines]  # type: ignore[union-attr]


def drawn_events() -> list[str]:
    return [text.split()[0] for _, text in drawing() if text.split()[0] in EVENTS]


def test_the_events_drawn_are_the_events_named() -> None:
    assert len(drawn_events()) == len(set(drawn_events()))
    assert set(drawn_events()) == set(EVENTS)


def pattern() -> str:
    """The drawing as a regular expression over events: a line with children that says "for
    each" repeats them; looks, which fall between any two steps, are taken out."""
    lines = [(d, t) for d, t in drawing() if t.split()[0] not in LOOK]

    def body(start: int, depth: int) -> tuple[str, int]:
        made, at = "", start
        while at < len(lines) and lines[at][0] >= depth:
            here, text = lines[at]
            inner, following = body(at + 1, here + 1)
            word = text.split()[0]
            made += f"{word};" if word in EVENTS else ""
            made += f"(?:{inner})+" if text.startswith("for each") else inner
            at = following
        return made, at

    return body(0, 0)[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_is_heard_as_it_is_drawn(job, phase, recorder, accumulate: int) -> None:
    """Two phases of two epochs, with a look inside an epoch."""
    phases = (phase(name="one", steps=10), phase(name="two", steps=10, accumulate=accumulate))
    fit(job(phases=phases, evaluate_at=(0, 3, 10, 14, 20), listeners=(recorder,)))
    heard = recorder.heard
    assert heard[:3] == ["run_start", *LOOK]
    assert heard.count("snapshot_due") == heard.count("snapshot_taken") == 5
    for at in [i for i, event in enumerate(heard) if event == "snapshot_due"][1:]:
        assert heard[at + 1] == "snapshot_taken"
        assert heard[at - 1] in ("step_done", "epoch_end")
    if accumulate == 1:
        told = "".join(f"{event};" for event in heard if event not in LOOK)
        assert re.fullmatch(pattern(), told), f"{pattern()}\n{told}"
    assert heard.count("loss_ready") == 10 + 10 * accumulate
    for event in ("backward_done", "gradients_ready", "step_done"):
        assert heard.count(event) == 20


def test_the_pattern_of_the_drawing_is_not_empty() -> None:
    assert "(?:batch_ready;loss_ready;backward_done;gradients_ready;step_done;)+" in pattern()


def test_the_best_state_is_restored_and_not_the_last(job, recorder) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}
    recorder.at["snapshot_taken"] = lambda run: seen.update({run.step: run.copy_tensors()})
    made = job(
        evaluate_at=(0, 2, 5, 8, 10),
        listeners=(recorder,),
        criterion=lambda snapshot: abs(snapshot.step - 5),
    )
    fitted = fit(made)
    assert (fitted.best_step, fitted.last_step) == (5, 10)
    for name, tensor in made.network.named_parameters():
        if tensor.requires_grad:
            assert torch.equal(tensor, seen[5][name])
            assert not torch.equal(tensor, seen[10][name])


def test_equal_values_of_the_criterion_keep_the_earlier_state(job) -> None:
    assert fit(job(evaluate_at=(0, 5, 10), criterion=lambda snapshot: 1.0)).best_step == 0


def test_a_criterion_that_is_never_a_number_keeps_the_newest(job) -> None:
    assert fit(job(criterion=lambda snapshot: math.nan)).best_step == 10


def test_frozen_parameters_do_not_move_and_the_others_do(job) -> None:
    made = job()
    before = {n: p.detach().clone() for n, p in made.network.named_parameters()}
    fit(made)
    for name, parameter in made.network.named_parameters():
        assert torch.equal(parameter, before[name]) == (name == "words.weight")


def test_a_run_ends_with_all_its_steps_and_says_so(job) -> None:
    fitted = fit(job())
    assert fitted.last_step == 10
    assert fitted.stopped_because == "all 10 planned steps were taken"
    assert fitted.examples_seen == 80


def test_the_same_job_twice_gives_the_same_weights(job) -> None:
    one, two = job(dropout=0.3), job(dropout=0.3)
    fit(one)
    fit(two)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)


WANTED = "a test wants it"


class Advice:
    """Advises an action at one step."""

    def __init__(self, step: int, action: Action) -> None:
        self.step, self.action = step, action

    def decide(self, verdict: Verdict, history: list[Snapshot]) -> tuple[Action, ...]:
        return (self.action,) if history[-1].step == self.step else ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_an_advised_stop_ends_the_run_at_that_look(job, tmp_path: Path) -> None:
    fitted = fit(job(tmp_path, evaluate_at=(0, 4, 10), advisor=Advice(4, Stop(WANTED))))
    assert (fitted.last_step, fitted.stopped_because) == (4, "a test wants it")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    acted = [line for line in lines if line["event"] == "action"]
    assert [(line["step"], line["because"]) for line in acted] == [(4, "a test wants it")]


def test_continue_changes_nothing(job) -> None:
    assert fit(job(evaluate_at=(0, 4, 10), advisor=Advice(4, Continue(WANTED)))).last_step == 10


def test_what_the_loop_cannot_apply_is_refused_and_named(job) -> None:
    class Explode:
        because = "a test wants it"

    with pytest.raises(RunError, match=r"cannot apply.*Explode") as caught:
        fit(job(evaluate_at=(0, 4, 10), advisor=Advice(4, Explode())))
    assert "Continue" in caught.value.remedy


def test_a_rollback_without_a_restore_point_is_refused(job) -> None:
    with pytest.raises(RunError, match=r"without a restore point.*4") as caught:
        fit(job(evaluate_at=(0, 4, 10), advisor=Advice(10, RollBack(WANTED, 4))))
    assert "available now: none" in caught.value.remedy


def test_the_limit_in_minutes_ends_cleanly_with_a_look(job) -> None:
    fitted = fit(job(max_minutes=1e-9, evaluate_at=(0, 10)))
    assert fitted.last_step == 1
    assert [snapshot.step for snapshot in fitted.history] == [0, 1]
    assert "train.max_minutes" in fitted.stopped_because


def test_a_stop_in_the_first_phase_ends_the_run(job, phase) -> None:
    phases = (phase(name="one", steps=5), phase(name="two", steps=5))
    fitted = fit(job(phases=phases, evaluate_at=(0, 3, 5, 10), advisor=Advice(3, Stop(WANTED))))
    assert fitted.last_step == 3


def test_a_loss_that_is_not_a_number_names_the_step_the_rate_and_the_remedy(
    job, phase, tmp_path: Path
) -> None:
    rate = 1e38
    made = job(
        tmp_path,
        phases=(phase(learning_rate=rate, head_learning_rate=rate, optimizer="sgd"),),
        evaluate_at=(0, 10),
        every_s=1e9,
    )
    with pytest.raises(TrainingError, match=r"step \d+.*not a finite number") as caught:
        fit(made)
    assert "1e+38" in caught.value.remedy
    assert caught.value.exit_code == 2


def raising(error: BaseException):
    def act(run: Any) -> None:
        raise error

    return act


MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 99 bytes."
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", MEMORY, ids=lambda error: str(error)[:20])
def test_no_memory_is_said_with_what_to_change(job, recorder, error: Exception) -> None:
    recorder.at["loss_ready"] = raising(error)
    with pytest.raises(MachineError, match=r"needs more memory") as caught:
        fit(job(listeners=(recorder,)))
    assert "train.batch_size" in caught.value.remedy


def test_another_error_that_mentions_memory_stays_itself(job, recorder) -> None:
    recorder.at["loss_ready"] = raising(RuntimeError("unsupported memory format option"))
    with pytest.raises(RuntimeError, match="memory format"):
        fit(job(listeners=(recorder,)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    job, recorder, tmp_path: Path, number: int
) -> None:
    recorder.at["batch_ready"] = lambda run: run.step == 3 and os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="interrupted at step 4") as caught:
        fit(job(tmp_path, listeners=(recorder,), every_s=1e9))
    assert caught.value.exit_code == 130
    assert "--resume" in caught.value.remedy
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004.pt"]
    assert signal.getsignal(number) is before


def test_what_nohup_ignores_stays_ignored(job, recorder, tmp_path: Path) -> None:
    from holdfast.training.machine.signals import terminate_like_interrupt

    recorder.at["batch_ready"] = lambda run: os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminate_like_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
            fitted = fit(job(tmp_path, listeners=(recorder,)))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert fitted.last_step == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_outside_of_the_loop_it_is_an_interrupt(number: int) -> None:
    from holdfast.training.machine.signals import terminate_like_interrupt

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_signal_while_the_last_checkpoint_is_written_stops_too(job, tmp_path: Path) -> None:
    made = job(tmp_path, every_s=1e9)
    save = made.store.save
    made.store.save = lambda *a: (save(*a), os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="at step 10"):
        fit(made)


def test_a_second_signal_does_not_wait_for_the_step(job, recorder) -> None:
    def twice(run: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    recorder.at["batch_ready"] = twice
    with pytest.raises(KeyboardInterrupt):
        fit(job(listeners=(recorder,)))


def test_an_event_that_nobody_named_is_a_defect(job, recorder) -> None:
    recorder.at["run_start"] = lambda run: run.emit("tea_break")
    with pytest.raises(Defect, match="is missing in core"):
        fit(job(listeners=(recorder,)))
