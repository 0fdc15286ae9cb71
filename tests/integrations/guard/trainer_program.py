"""A trainer with the guard, as one of several processes (or alone): what the guard came to.

    torchrun --nproc-per-node=2 trainer_program.py FOLDER [KEY=VALUE]...

Keys: ``batch`` rows of a process, ``epochs``, ``fsdp``, ``stop_after`` evaluations, ``fail_at`` an
evaluation (of the main process), ``scale_at`` an evaluation, ``policy``, ``resume``, ``refuse``.
Each process writes ``FOLDER/told-RANK.json``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from conftest import marked, tiny_classifier
from holdfast import Guard
from holdfast.core.actions import Action, ScaleLearningRate, Stop
from holdfast.plugins.trainers.foreign import UserCodeError
from holdfast.plugins.trainers.watch import TrainerRun
from holdfast.training.machine.sharding import gather_tensor


class Advice:
    """Scales the learning rate at one evaluation and stops at another."""

    def __init__(self, scale_at: int, stop_after: int) -> None:
        self.scale_at, self.stop_after, self.count = scale_at, stop_after, 0

    def decide(self, verdict: Any, history: Any) -> tuple[Action, ...]:
        self.count += 1
        if self.count == self.scale_at:
            return (ScaleLearningRate("asked for", 0.5),)
        return (Stop("asked for"),) if self.count == self.stop_after else ()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class InOrder(Trainer):
    """The rows in their order, so that a batch of one process holds those of all."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


class Gathering(InOrder):
    """Its own loss looks at the rows of all processes, as TRL's preference trainers do."""

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        loss = super().compute_loss(model, inputs, *arguments, **options)
        found = loss[0] if isinstance(loss, tuple) else loss
        self.accelerator.gather(found.detach().reshape(1))
        return loss


class Kill(TrainerCallback):
    """Ends every process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os._exit(9)


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(os.environ.get("RANK", "0"))
    given = dict(word.split("=") for word in sys.argv[2:])
    if rank == 0 and "fail_at" in given:
        fail_in_main(int(given["fail_at"]))
    advice = Advice(int(given.get("scale_at", "0")), int(given.get("stop_after", "0")))
    own = {"advisor": advice} if {"scale_at", "stop_after"} & given.keys() else {}
    lines: list[str] = []
    guard = Guard(policy=given.get("policy", "stop"), log=lines.append, **own)  # type: ignore[arg-type]
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=float(given.get("epochs", "4")),
        per_device_train_batch_size=int(given.get("batch", "4")),
        per_device_eval_batch_size=8,
        learning_rate=2e-2,
        eval_strategy="epoch",
        save_strategy="epoch" if "save" in given or "resume" in given else "no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        # With it, Transformers counts the loss of a classifier once for each process.
        average_tokens_across_devices=False,
        seed=0,
    )
    if rank == 0 and "fail_in_save" in given:
        from holdfast.plugins.trainers import transformers as adapter

        adapter.write_state = _full_disk  # type: ignore[assignment]
    if rank == 0 and "fail_in_report" in given:
        Guard.report = _full_disk  # type: ignore[method-assign,assignment]
    callbacks: list[Any] = [guard.callback()]
    callbacks += [guard.callback()] if "refuse" in given else []
    callbacks += [Kill(int(given["kill_at"]))] if "kill_at" in given else []
    model = tiny_classifier(dropout=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if "fsdp" in given:
        from torch.distributed.fsdp import fully_shard

        for layer in model.bert.encoder.layer:
            fully_shard(layer)
        # As Accelerate does with what is not in a block.
        fully_shard(model, reshard_after_forward=False)
    trainer = (Gathering if "gathers" in given else InOrder)(
        model=model,
        args=arguments,
        train_dataset=marked(32, noise=0.4),
        eval_dataset=marked(24, 1),
        callbacks=callbacks,
    )
    if "fsdp" in given:
        # Accelerate shards on GPUs alone; here the model is sharded already.
        trainer.accelerator.prepare_model = lambda model, **kwargs: model
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint="resume" in given)
    seconds = time.perf_counter() - start
    # As it would be saved.
    weights = {n: gather_tensor(t.detach()) for n, t in trainer.model.state_dict().items()}
    total = float(sum(w.double().abs().sum() for w in weights.values() if w.is_floating_point()))
    verdict = guard.verdict
    told = {
        "weights": total,
        "steps": trainer.state.global_step,
        "rate": trainer.lr_scheduler.base_lrs[0],
        "seconds": seconds,
        "lines": lines,
        "best_step": guard.best_step,
        "verdict": verdict.label if verdict else None,
        "valid": [s.valid_loss for s in guard.history],
        "at": [s.step for s in guard.history],
        "threads": torch.get_num_threads(),
    }
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


def _full_disk(*arguments: Any) -> Any:
    raise UserCodeError("the folder: No space left on device")


def fail_in_main(number: int) -> None:
    """Its disk is full at an evaluation."""
    known, count = TrainerRun.observe, 0

    def observe(self: TrainerRun) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise UserCodeError("the folder: No space left on device")
        return known(self)

    TrainerRun.observe = observe  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
