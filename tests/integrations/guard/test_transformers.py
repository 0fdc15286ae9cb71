"""The guard in ``transformers.Trainer``: it sees right, leaves no trace, stops and restores."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback
from typer.testing import CliRunner

import holdfast
from holdfast import Guard
from holdfast.cli.main import app
from holdfast.contract.run_folder import need_run
from holdfast.control.choice import lowest, newest_unless_worse
from holdfast.control.policy import Remedy
from holdfast.core.actions import (
    Action,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    SetWeightDecay,
    Stop,
)
from holdfast.core.errors import DataError, MachineError, RecipeError, RunError
from holdfast.core.records import Snapshot, to_json
from holdfast.plugins.trainers import guard as guard_module
from holdfast.plugins.trainers.transformers import _refuse
from holdfast.training.evaluation_file import EVALUATIONS_FILE, read_evaluations


def weights(model: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def alone(trainer: Any, rows: Any) -> list[float]:
    """Each row by itself through the model, whose own loss of one row is the row's loss."""
    trainer.model.eval()
    losses = []
    for row in rows:
        with torch.no_grad():
            given = {k: torch.tensor([v]) for k, v in row.items()}
            losses.append(float(trainer.model(**given).loss))
    return losses


def by_class(rows: Any) -> Any:
    return rows.select(np.argsort(rows["labels"], kind="stable"))


class Modes(TrainerCallback):
    """Sees whether the model is in training mode before each step, and where Python's and NumPy's
    generators stand."""

    def __init__(self) -> None:
        self.training: list[bool] = []
        self.generators: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **told: Any) -> None:
        self.training.append(all(module.training for module in told["model"].modules()))
        self.generators.append((random.random(), np.random.rand()))


class StopAt:
    """An advisor that stops at its n-th look."""

    def __init__(self, count: int) -> None:
        self.left = count

    def decide(self, verdict: Any, history: Any) -> tuple[Action, ...]:
        self.left -= 1
        return (Stop("that was asked for"),) if self.left <= 0 else ()

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = state["left"]


@pytest.fixture
def noisy(trainer: Any, rows_of: Any) -> Any:
    """A ``trainer`` whose labels say nothing of its rows: it can only learn them by heart."""
    rows = {"train_dataset": rows_of(32, noise=0.5), "eval_dataset": rows_of(40, 1)}
    return lambda *callbacks, **changes: trainer(*callbacks, **(rows | changes))


def test_the_losses_are_those_of_each_row_alone(trainer: Any, lines: list[str]) -> None:
    guard = Guard(policy="off", log=lines.append)
    made = trainer(guard.callback(), label_smoothing_factor=0.2, max_steps=4)
    made.train()
    last = guard.history[-1]
    assert last.valid_losses == pytest.approx(alone(made, made.eval_dataset), abs=1e-5)
    assert last.valid_metrics["accuracy"] == pytest.approx(
        np.mean(last.valid_logits.argmax(axis=1) == made.eval_dataset["labels"])  # type: ignore[union-attr]
    )
    assert any("the model's own loss" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["epoch", "no"])
def test_a_guard_that_only_observes_leaves_no_trace(
    trainer: Any, lines: list[str], strategy: str
) -> None:
    seen, unseen = Modes(), Modes()
    guard = Guard(policy="off", evaluations=3, log=lines.append)
    # A Trainer seeds everything when it is made, not when it trains.
    watched = trainer(guard.callback(), seen, out="a", eval_strategy=strategy)
    watched.train()
    plain = trainer(unseen, out="b", eval_strategy=strategy)
    plain.train()
    assert len(guard.history) == 4
    assert same(weights(watched.model), weights(plain.model))
    assert seen.training == unseen.training
    assert sum(seen.training) > 0
    assert seen.generators == unseen.generators
    told = [
        {k: v for k, v in line.items() if "runtime" not in k and "per_second" not in k}
        for line in watched.state.log_history
    ]
    assert told == [
        {k: v for k, v in line.items() if "runtime" not in k and "per_second" not in k}
        for line in plain.state.log_history
    ]


def test_it_stops_and_restores_the_best_state_without_a_checkpoint(
    noisy: Any, rows_of: Any, lines: list[str]
) -> None:
    choose = lowest(lambda snapshot: snapshot.valid_loss)
    guard = Guard(patience=2, choose=choose, log=lines.append)
    made = noisy(
        guard.callback(), eval_dataset=rows_of(80, 1), num_train_epochs=30, learning_rate=2e-2
    )
    made.train()
    assert made.state.global_step < 30 * 4
    assert guard.stopped_because is not None
    best = next(s for s in guard.history if s.step == guard.best_step)
    assert guard.best_step < made.state.global_step
    assert made.evaluate()["eval_loss"] == pytest.approx(best.valid_loss, abs=1e-5)
    assert best.valid_losses == pytest.approx(alone(made, made.eval_dataset), abs=1e-5)
    assert any("MB in host memory" in line for line in lines)
    events = told(guard)
    kinds = {event["event"] for event in events}
    assert kinds == {"note", "snapshot", "verdict", "action"}
    assert [e["action"] for e in events if e["event"] == "action"] == ["Stop", "RollBack"]


@pytest.mark.slow
def test_the_lowest_calibrated_loss_is_restored_and_its_figures_stand_beside_the_others(
    noisy: Any, lines: list[str]
) -> None:
    """A run that overfits: later checkpoints are worse, the last ones by less than a test tells."""
    guard = Guard(patience=None, log=lines.append)
    made = noisy(guard.callback(), num_train_epochs=12, learning_rate=1e-2)
    made.train()
    history = guard.history
    best = min(history, key=lambda look: look.refined_loss)
    assert guard.best_step == best.step
    assert newest_unless_worse(history) != history.index(best), "a run where the rules differ"
    assert made.evaluate()["eval_loss"] == pytest.approx(best.valid_loss, abs=1e-5)
    result = json.loads((guard.folder / "result.json").read_text("utf-8"))  # type: ignore[operator]
    (kept,) = [d for d in result["decisions"] if d["what"] == "best checkpoint"]
    assert kept["chosen"] == f"step {best.step} of {history[-1].step}"
    raw = min(history, key=lambda look: look.valid_loss)
    for look in {id(one): one for one in (best, raw, history[-1])}.values():
        assert f"{look.refined_loss:.4g}, raw loss {look.valid_loss:.4g}" in kept["because"]
    # The user's model has no temperature in it: the scores are without, and the report says so.
    told = result["calibration"]
    assert (told["in_saved_model"], told["loss"]) == (False, pytest.approx(best.valid_loss))
    assert told["calibrated_loss"] == pytest.approx(best.refined_loss)
    assert result["valid"]["metrics"]["loss"]["value"] == pytest.approx(best.valid_loss)
    page = (guard.folder / "report.html").read_text("utf-8")  # type: ignore[operator]
    told = f"the validation loss of the model is {best.valid_loss:.4g}"
    assert f"not in the saved model; {told}" in page
    assert any(line.startswith("best checkpoint: ") for line in lines)


@pytest.mark.slow
def test_a_guard_that_only_observes_claims_no_figures_of_the_model_that_is_left(
    noisy: Any, lines: list[str]
) -> None:
    guard = Guard(policy="off", log=lines.append)
    made = noisy(guard.callback(), num_train_epochs=12, learning_rate=1e-2)
    made.train()
    best = min(guard.history, key=lambda look: look.refined_loss)
    assert made.evaluate()["eval_loss"] != pytest.approx(best.valid_loss, abs=1e-3)
    result = json.loads((guard.folder / "result.json").read_text("utf-8"))  # type: ignore[operator]
    said = {d["what"]: d for d in result["decisions"]}
    assert "the final weights are the trainer's" in said["best checkpoint"]["chosen"]
    whose = f"the checkpoint of step {best.step}, which the guard does not restore"
    assert (
        f"the validation loss of {whose}, is {best.valid_loss:.4g}" in said["temperature"]["chosen"]
    )
    assert f"are those of {whose}" in result["calibration"]["because"]


@pytest.mark.slow
def test_without_patience_it_stops_on_a_verdict_and_never_for_want_of_gain(
    noisy: Any, lines: list[str]
) -> None:
    guard = Guard(patience=None, log=lines.append)
    made = noisy(guard.callback(), num_train_epochs=5, learning_rate=1e-7)
    made.train()
    assert made.state.global_step == 5 * 4
    assert guard._watch is not None
    advisor = guard._watch._advisor
    assert advisor is not None
    assert guard.verdict is not None
    assert not advisor.decide(replace(guard.verdict, label="healthy"), guard.history)
    for label, harm in (("overfit", "answers"), ("diverging", None)):
        verdict = replace(guard.verdict, label=label, harm=harm)  # type: ignore[arg-type]
        (stop,) = advisor.decide(verdict, guard.history)
        assert isinstance(stop, Stop)
        assert stop.because.startswith(f"{label}: ")


def numbers(snapshot: Snapshot) -> Any:
    fields = {name: getattr(snapshot, name) for name in Snapshot.__slots__ if name != "seconds"}
    return to_json(fields)


def told(guard: Guard) -> list[dict[str, Any]]:
    text = (guard.folder / "events.jsonl").read_text("utf-8")  # type: ignore[operator]
    return [
        {k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()
    ]


class KillAt(TrainerCallback):
    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.step, self.error = step, error

    def on_step_end(self, args: Any, state: Any, control: Any, **told: Any) -> None:
        if state.global_step == self.step:
            raise self.error


@pytest.mark.slow
# Within an epoch: after a checkpoint at the end of one that is evaluated there, Transformers itself
# draws other rows than the undisturbed run.
@pytest.mark.parametrize(("strategy", "save"), [("no", 3), ("epoch", 3)])
def test_a_resumed_run_is_the_undisturbed_one(
    trainer: Any, rows_of: Any, killed: Any, lines: list[str], strategy: str, save: int
) -> None:
    """Patience is in the middle of its wait when the run is killed (transformers #28544)."""

    def make(out: str, *more: Any) -> tuple[Guard, Any]:
        guard = Guard(patience=2, evaluations=9, log=lines.append)
        return guard, trainer(
            guard.callback(),
            *more,
            out=out,
            train_dataset=rows_of(32, noise=0.5),
            learning_rate=1e-2,
            num_train_epochs=9,
            save_strategy="steps",
            save_steps=save,
            eval_strategy=strategy,
            save_total_limit=2,
        )

    whole, undisturbed = make("whole")
    undisturbed.train()
    assert whole.stopped_because is not None
    steps = undisturbed.state.global_step
    with pytest.raises(killed):
        make("broken", KillAt(steps - 2, killed))[1].train()
    again, resumed = make("broken")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == steps
    for one, two in zip(again.history, whole.history, strict=True):
        different = [name for name, value in numbers(one).items() if value != numbers(two)[name]]
        assert not different, (one.step, different)
    assert (again.verdict, again.best_step) == (whole.verdict, whole.best_step)
    assert again.stopped_because == whole.stopped_because
    assert same(weights(resumed.model), weights(undisturbed.model))
    assert told(again) == told(whole)
    assert again.folder.parent.name == "broken"  # type: ignore[union-attr]


@pytest.mark.parametrize("action", [RollBack("a test wants it", 0), SetDropout("why", 0.5)])
def test_what_cannot_be_done_in_anothers_trainer_is_told_and_not_done(
    trainer: Any, lines: list[str], action: Action
) -> None:
    class Advice(StopAt):
        def decide(self, verdict: Any, history: Any) -> tuple[Action, ...]:
            return (action,) if len(history) == 2 else ()

    made = trainer(Guard(advisor=Advice(9), log=lines.append).callback())
    made.train()
    assert made.state.global_step == 12
    assert "the guard disabled itself" in lines[-1]
    assert "the advisor" in lines[-1]


def test_the_look_that_a_resuming_trainer_leaves_out_is_taken(
    trainer: Any, killed: Any, lines: list[str]
) -> None:
    """A checkpoint at the last step of an epoch is older than the epoch's evaluation, which the
    trainer never makes up for."""
    settings = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    with pytest.raises(killed):
        trainer(Guard(log=lines.append).callback(), KillAt(6, killed), **settings).train()
    guard = Guard(log=lines.append)
    trainer(guard.callback(), **settings).train(resume_from_checkpoint=True)
    assert [s.step for s in guard.history] == [0, 4, 8]


def test_each_look_keeps_the_plan_that_it_was_taken_in(trainer: Any, lines: list[str]) -> None:
    """A completed run is resumed with twice the steps: what it had spent by then stays spent."""
    often = {"eval_strategy": "steps", "eval_steps": 2}
    settings = {"save_strategy": "steps", "save_steps": 4, **often}
    trainer(Guard(log=lines.append).callback(), max_steps=4, **settings).train()
    guard = Guard(log=lines.append)
    trainer(guard.callback(), max_steps=8, **settings).train(resume_from_checkpoint=True)
    looks = [(s.step, s.planned_steps) for s in guard.history]
    assert looks == [(0, 4), (2, 4), (4, 4), (6, 8), (8, 8)]


def test_a_checkpoint_without_the_guard_is_not_continued(trainer: Any, lines: list[str]) -> None:
    trainer(out="a", max_steps=4, save_strategy="steps", save_steps=2).train()
    guard = Guard(log=lines.append)
    made = trainer(guard.callback(), out="a", max_steps=6)
    with pytest.raises(RunError, match="holds no state of the guard"):
        made.train(resume_from_checkpoint=True)


def test_a_trainer_without_evaluation_rows_is_refused_with_an_offer(
    trainer: Any, lines: list[str]
) -> None:
    made = trainer(Guard(log=lines.append).callback(), eval_dataset=None, eval_strategy="no")
    with pytest.raises(DataError, match=r"(?s)no evaluation rows.*hold_out=0\.15"):
        made.train()


def test_rows_are_held_out_and_copies_stay_together(
    trainer: Any, rows_of: Any, lines: list[str]
) -> None:
    from datasets import concatenate_datasets

    some = rows_of(60)
    both = concatenate_datasets([some, some])
    guard = Guard(hold_out=0.25, evaluations=2, log=lines.append)
    made = trainer(
        guard.callback(), train_dataset=both, eval_dataset=None, eval_strategy="no", max_steps=4
    )
    kept = {tuple(row) for row in made.train_dataset["input_ids"]}
    held = {tuple(row) for row in made.eval_dataset["input_ids"]}
    assert not kept & held
    assert len(made.train_dataset) + len(made.eval_dataset) == 120
    assert 30 <= len(made.eval_dataset) <= 32
    made.train()
    assert guard.history[-1].valid_losses.size == len(made.eval_dataset)
    words = f"evaluation rows: {len(made.eval_dataset)} of 120 training rows held out (the trainer"
    assert any(line.startswith(words) for line in lines)


def test_a_guard_in_the_place_of_its_callback_is_refused(trainer: Any) -> None:
    with pytest.raises(RecipeError, match=r"callbacks=\[guard\.callback\(\)\]"):
        trainer(Guard())


def test_holding_out_beside_evaluation_rows_is_refused(trainer: Any) -> None:
    with pytest.raises(RecipeError, match="without evaluation rows"):
        trainer(Guard(hold_out=0.2).callback())


def test_two_that_choose_the_final_weights_are_refused(trainer: Any, lines: list[str]) -> None:
    settings = {"load_best_model_at_end": True, "save_strategy": "epoch", "max_steps": 2}
    with pytest.raises(RecipeError, match="load_best_model_at_end"):
        trainer(Guard(log=lines.append).callback(), **settings).train()


@pytest.mark.parametrize(
    ("name", "told"),
    [("is_deepspeed_enabled", "'DeepSpeed'"), ("is_fsdp_enabled", "'FSDP version 1'")],
)
def test_what_shards_weights_in_another_way_is_refused(trainer: Any, name: str, told: str) -> None:
    guard = Guard(log=lambda line: None)
    made = trainer(guard.callback(), max_steps=2)
    # Neither package is here, and such a trainer would look for it before the guard does.
    setattr(made, name, True)
    with pytest.raises(MachineError, match=rf"FSDP version 2 \(found: {told}\)"):
        _refuse(made, guard)


def test_a_stream_of_training_rows_is_refused(trainer: Any, lines: list[str]) -> None:
    guard = Guard(log=lines.append)
    stream = trainer().train_dataset.to_iterable_dataset()
    with pytest.raises(DataError, match="stream"):
        trainer(guard.callback(), train_dataset=stream, max_steps=2).train()


def test_a_loss_of_the_users_own_is_asked_row_by_row_and_that_is_said(
    trainer: Any, lines: list[str]
) -> None:
    def focal(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        chances = outputs["logits"].softmax(dim=-1).gather(1, labels[:, None])
        return (-((1 - chances) ** 2) * chances.log()).mean()

    guard = Guard(policy="off", evaluations=1, log=lines.append)
    made = trainer(guard.callback(), compute_loss_func=focal, max_steps=3, eval_strategy="no")
    made.train()
    assert any("compute_loss_func" in line and "by itself" in line for line in lines)
    plain = np.array(alone(made, made.eval_dataset))
    expected = (1 - np.exp(-plain)) ** 2 * plain
    assert guard.history[-1].valid_losses == pytest.approx(expected, abs=1e-5)
    assert guard.history[-1].valid_logits is None


def test_weighted_classes_inside_a_model_are_not_taken_for_plain_ones(
    trainer: Any, classifier: Any, rows_of: Any, lines: list[str]
) -> None:
    """Sorted rows: the first evaluation batch holds one class, whose weighted mean is the plain
    one."""
    model = classifier()
    inner = model.forward

    def weighted(labels: Any = None, **inputs: Any) -> Any:
        output = inner(labels=labels, **inputs)
        weight = torch.tensor([1.0, 9.0])
        output.loss = torch.nn.functional.cross_entropy(output.logits, labels, weight)
        return output

    model.forward = weighted
    guard = Guard(policy="off", evaluations=1, log=lines.append)
    made = trainer(
        guard.callback(),
        model=model,
        eval_dataset=by_class(rows_of(24, 1)),
        max_steps=2,
        eval_strategy="no",
        remove_unused_columns=False,
    )
    made.train()
    assert any("no known formula" in line for line in lines)
    assert guard.history[-1].valid_losses == pytest.approx(alone(made, made.eval_dataset), abs=1e-5)


def test_another_advisor_may_decide_and_a_second_run_begins_anew(
    trainer: Any, lines: list[str]
) -> None:
    guard = Guard(advisor=StopAt(2), log=lines.append)
    made = trainer(guard.callback())
    made.train()
    first = guard.folder
    made.train()
    assert [s.step for s in guard.history] == [0, 4]
    assert guard.stopped_because == "that was asked for"
    assert (first.name, guard.folder.name) == ("holdfast", "holdfast-2")  # type: ignore[union-attr]


class Rates(TrainerCallback):
    """The rate of each update."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **told: Any) -> None:
        self.rates.append(told["optimizer"].param_groups[0]["lr"])


class Halve:
    """Halves the rate at its second look, and asks what can be done."""

    def __init__(self) -> None:
        self.can: set[str] = set()

    def decide(self, sight: Any) -> Any:
        self.can |= set(sight.can.actions)
        if sight.look != 1:
            return None
        changes = (ScaleLearningRate("half", 0.5), SetWeightDecay("less", 0.003))
        return Remedy("half the rate", changes)


@pytest.mark.slow
def test_a_policy_changes_what_the_trainer_lets_it_change(trainer: Any, lines: list[str]) -> None:
    plain, halved, policy = Rates(), Rates(), Halve()
    for rates, chosen in ((plain, "stop"), (halved, policy)):
        guard = Guard(policy=chosen, patience=None, log=lines.append)
        made = trainer(guard.callback(), weight_decay=0.1)
        made.add_callback(rates)
        made.train()
    assert policy.can == {"Stop", "ScaleLearningRate", "SetWeightDecay"}
    step = guard.history[1].step
    assert halved.rates[:step] == plain.rates[:step]
    after = [x / 2 for x in plain.rates[step:]]
    assert halved.rates[step : len(after) + step] == pytest.approx(after)
    groups = made.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} <= {0.003, 0.0}
    told = (guard.folder / "events.jsonl").read_text("utf-8")  # type: ignore[operator]
    assert "ScaleLearningRate" in told


@pytest.mark.parametrize(
    "plan",
    [
        {"eval_strategy": "no", "max_steps": 9},
        {"eval_strategy": "steps", "eval_steps": 0.25, "max_steps": 9},
        {"eval_strategy": "epoch", "num_train_epochs": 2},
    ],
)
def test_a_policy_is_told_when_the_run_is_evaluated(
    trainer: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch, plan: dict[str, Any]
) -> None:
    plans: list[Any] = []
    told_of = guard_module.run_course_of
    monkeypatch.setattr(
        guard_module, "run_course_of", lambda run: plans.append(told_of(run)) or plans[-1]
    )
    guard = Guard(policy="adapt", patience=None, log=lines.append)
    trainer(guard.callback(), **plan).train()
    (told,) = plans
    assert told.evaluation_steps == tuple(one.step for one in guard.history)


def test_adapt_mends_a_rate_far_too_low(trainer: Any, lines: list[str]) -> None:
    guard = Guard(policy="adapt", patience=None, log=lines.append)
    made = trainer(guard.callback(), learning_rate=1e-7)
    made.train()
    told = (guard.folder / "events.jsonl").read_text("utf-8")  # type: ignore[operator]
    assert re.search(r"e-0\d is 1/[\d,]+ of the usual one", told)
    change = next(i for i, line in enumerate(lines) if "learning rate × " in line)
    assert re.match(r"step \d+: learning rate × [\de.+]+: the learning rate 1e-07", lines[change])
    control = json.loads((guard.folder / "result.json").read_text("utf-8"))["control"]  # type: ignore[operator]
    assert control["policy"] == "adapt"
    assert control["looks"] == len(guard.history)
    assert control["steps"] == control["planned_steps"] == made.state.global_step
    (trial,) = control["trials"]
    assert f"step {trial['step']}: " in lines[change]
    assert trial["actions"][0]["action"] == "ScaleLearningRate"
    assert control["optimism"]["seen"]["value"] is None
    page = (guard.folder / "report.html").read_text("utf-8")  # type: ignore[operator]
    end = "kept" if trial["kept"] else "undone"
    assert f"the run tried {trial['name']}, starting from step {trial['step']}: {end}." in page
    assert "was chosen among" in page


def test_another_rule_or_advisor_is_named_and_its_optimism_is_not_known(
    trainer: Any, lines: list[str]
) -> None:
    class Patient:
        def decide(self, verdict: Any, history: Any) -> tuple[Any, ...]:
            return ()

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            return None

    def newest(history: Any) -> int:
        return len(history) - 1

    controls = []
    for more in ({"policy": "off"}, {"choose": newest}, {"advisor": Patient()}):
        guard = Guard(evaluations=2, log=lines.append, **more)
        trainer(guard.callback(), max_steps=8, eval_strategy="no").train()
        path = guard.folder / "result.json"  # type: ignore[operator]
        controls.append(json.loads(path.read_text("utf-8"))["control"])
    assert [one["policy"] for one in controls] == ["off", "stop", "Patient"]
    assert [one["trials"] for one in controls] == [[], [], []]
    assert [one["optimism"] is None for one in controls] == [False, True, False]


class StopsEarly(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = state.global_step >= 9
        return control


def test_a_trial_that_another_callback_ends_is_not_undone(trainer: Any, lines: list[str]) -> None:
    guard = Guard(policy="adapt", patience=None, log=lines.append)
    made = trainer(guard.callback(), learning_rate=1e-7)
    made.add_callback(StopsEarly())
    made.train()
    (trial,) = json.loads((guard.folder / "result.json").read_text("utf-8"))["control"]["trials"]  # type: ignore[operator]
    assert not trial["ended"]
    page = (guard.folder / "report.html").read_text("utf-8")  # type: ignore[operator]
    end = "kept" if trial["kept"] else "it was in progress when the run ended"
    assert f"starting from step {trial['step']}: {end}." in page


def test_the_report_shows_what_there_is(trainer: Any, lines: list[str]) -> None:
    guard = Guard(evaluations=2, log=lines.append)
    made = trainer(guard.callback(), max_steps=8, eval_strategy="no")
    with pytest.raises(RunError, match="a run yet"):
        guard.report()
    made.train()
    result = json.loads((guard.folder / "result.json").read_text("utf-8"))  # type: ignore[operator]
    page = (guard.folder / "report.html").read_text("utf-8")  # type: ignore[operator]
    assert result["schema"] == 1
    assert result["test"]["metrics"]["accuracy"]["value"] is None
    assert result["valid"]["n"] == 24
    assert result["verdict"]["label"] == guard.verdict.label  # type: ignore[union-attr]
    best = next(s for s in guard.history if s.step == guard.best_step)
    assert result["valid"]["metrics"]["loss"]["value"] == pytest.approx(best.valid_loss)
    assert "Learning curves" in page
    assert 'model="model"' not in page
    assert "--set" not in page
    assert guard.report() == guard.folder / "report.html"  # type: ignore[operator]
    page = (guard.folder / "report.html").read_text("utf-8")  # type: ignore[operator]
    (guard.folder / "report.html").unlink()  # type: ignore[operator]
    report = CliRunner().invoke(app, ["report", str(guard.folder)])
    assert report.exit_code == 0, report.output
    again = (guard.folder / "report.html").read_text("utf-8")  # type: ignore[operator]
    assert again == page
    with pytest.raises(RunError, match="is a Guard folder, which holds no model"):
        need_run(guard.folder)  # type: ignore[arg-type]
    found = holdfast.diagnose(guard.folder)  # type: ignore[arg-type]
    assert to_json(found) == result["verdict"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "adaptt"},
        {"hold_out": 1.0},
        {"patience": 0},
        {"evaluations": 0},
        {"sample_rows": 0},
        {"sample_rows": 1.5},
        {"evaluations": math.nan},
        {"patience": "3"},
        {"patience": math.nan},
        {"patience": True},
        {"hold_out": "0.2"},
        {"choose": None},
        {"log": 5},
    ],
)
def test_settings_are_checked_when_the_guard_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Guard(**wrong)


def test_counts_may_be_numbers_of_numpy() -> None:
    assert Guard(patience=np.int64(3), evaluations=np.int32(2)).evaluations == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("position", [99, -1, None, True, 0.0])
@pytest.mark.parametrize("policy", ["stop", "adapt"])
def test_a_wrong_position_is_an_error_of_the_users_rule(
    trainer: Any, lines: list[str], position: Any, policy: Any
) -> None:
    guard = Guard(policy=policy, choose=lambda _: position, log=lines.append)
    trainer(guard.callback(), max_steps=1).train()
    (warning,) = [line for line in lines if line.startswith("Warning: the guard disabled itself")]
    rule = "Guard(choose=…) must return a position in the history, 0 to 0, but returned"
    assert f"{rule} {position!r}" in warning
    assert guard.best_step is None


def test_what_the_users_rule_raises_is_named(trainer: Any, lines: list[str]) -> None:
    guard = Guard(choose=lambda history: history[9].step, log=lines.append)
    trainer(guard.callback(), max_steps=1).train()
    (warning,) = [line for line in lines if line.startswith("Warning: the guard disabled itself")]
    assert "Guard(choose=…) raised IndexError" in warning


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "constant_with_warmup"])
def test_the_peak_rate_is_that_of_the_arguments(trainer: Any, schedule: str) -> None:
    guard = Guard(policy="off", log=lambda _: None)
    trainer(guard.callback(), lr_scheduler_type=schedule, warmup_steps=4, max_steps=8).train()
    assert known_peak(guard) == 5e-3


def test_the_peak_rate_of_an_optimizer_of_the_user_s_own_is_not_guessed(
    trainer: Any, classifier: Any
) -> None:
    guard = Guard(policy="off", log=lambda _: None)
    made = trainer(guard.callback(), max_steps=2)
    made.optimizer = torch.optim.AdamW(made.model.parameters(), lr=1e-4)
    made.train()
    assert known_peak(guard) is None


def known_peak(guard: Guard) -> float | None:
    assert guard.folder is not None
    return read_evaluations(guard.folder / EVALUATIONS_FILE).run_facts.peak_rate
