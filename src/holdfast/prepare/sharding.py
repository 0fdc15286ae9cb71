"""Whether a run's weights are spread over its processes, what such a run cannot do, and the way
back to a plain network at its end."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.contract.fit import TrainingPlan
from holdfast.core.decisions import notify
from holdfast.core.errors import MachineError, RecipeError
from holdfast.core.machine import MB, process_count
from holdfast.core.records import Decision
from holdfast.core.tasks import DECODER_TASKS
from holdfast.models.adapters.quantize import weight_bytes
from holdfast.models.network_copy import copy_network, renumber, tensors_of
from holdfast.plan.defaults import extra_methods
from holdfast.plan.memory import on_gpu, tightest_limit
from holdfast.recipe import Recipe
from holdfast.tasks.generation.samples import watches
from holdfast.training.loop import TrainingResult
from holdfast.training.machine.sharding import gather_tensors, is_sharded, shard
from holdfast.training.run import Job

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.models.base import Network

SETTING = "train.shard"
ADAPTERS = (None, "lora", "rslora", "lora+")
# What ``accelerate launch --use_fsdp`` sets for the processes that it starts.
LAUNCHED, VERSION, OFFLOAD = "ACCELERATE_USE_FSDP", "FSDP_VERSION", "FSDP_OFFLOAD_PARAMS"
RESHARD, LOADING = "FSDP_RESHARD_AFTER_FORWARD", "FSDP_CPU_RAM_EFFICIENT_LOADING"
# Of the weights, what a model takes with what it computes of a few rows.
MEMORY_FACTOR = 1.3
LEAVE_OUT = f"Leave it out, or train with --set {SETTING}=off."


def choose_sharding(recipe: Recipe) -> str:
    """``full`` or ``off``, with the reason where several processes train.

    It must be called before the model is loaded. Raises ``RecipeError`` for what is not built for
    spread weights, ``MachineError`` for launchers' settings that are not followed.
    """
    requested, count, launcher_asks = recipe.train.shard, process_count(), _is_set(LAUNCHED)
    if requested == "full" and count == 1:
        raise RecipeError(
            SETTING,
            "spreads weights over processes, and this run has one",
            requested,
            "Start it with torchrun or accelerate launch, or leave it out.",
        )
    if requested == "off" or (requested == "auto" and not launcher_asks):
        because = "set in the recipe" if requested == "off" else "the launcher asks for no FSDP"
        if count > 1:
            notify(Decision(SETTING, "off", f"{because}: each process holds the whole model"))
        return "off"
    if count == 1:
        because = "the launcher asks for FSDP, and there is one process"
        notify(Decision(SETTING, "off", because))
        return "off"
    _check_launcher(launcher_asks)
    _check_recipe(recipe)
    # Transformers would otherwise give all processes but the first empty weights.
    os.environ[LOADING] = "false"
    why = "accelerate launch asks for FSDP 2" if requested == "auto" else "set in the recipe"
    because = (
        f"{why}: each of {count} processes holds a part of every weight, gradient and state; each "
        "reads the model whole into the processor's memory first"
    )
    notify(Decision(SETTING, f"full, over {count} processes", because))
    return "full"


def shard_of(recipe: Recipe, accelerator: Accelerator) -> tuple[int, int]:
    """Which part of the weights this process holds, of how many."""
    if recipe.train.shard != "full":
        return 0, 1
    return accelerator.process_index, accelerator.num_processes


def shard_network(network: Network, accelerator: Accelerator, precision: str) -> None:
    """Spread a network that may learn, as the launcher says."""
    before = {name: id(parameter) for name, parameter in network.named_parameters()}
    shard(network, accelerator, precision, reshard=os.environ.get(RESHARD, "true") != "false")
    after = dict(network.named_parameters())
    renumber(network, {number: id(after[name]) for name, number in before.items()})


def gather_model(
    training_plan: TrainingPlan, job: Job, trained: TrainingResult
) -> tuple[TrainingPlan, Job, TrainingResult]:
    """The same with a plain network in the best checkpoint, in the first process: it saves and
    scores.

    What did not learn lies in the processor's memory as it was loaded, so that only what learned is
    gathered, one weight at a time.
    """
    if not is_sharded(job.network):
        return training_plan, job, trained
    loaded: Any = training_plan.loaded
    pretrained = tensors_of(training_plan.prepared.loaded.network)
    accelerator = _scoring_accelerator(job, training_plan)
    learned = {
        name: t for name, t in job.network.named_parameters() if name in trained.initial_tensors
    }
    tensors = gather_tensors(learned, job.accelerator.is_main_process)
    plain = copy_network(training_plan.prepared.loaded.network, tensors)
    start = {name: pretrained[name] for name in trained.initial_tensors}
    return (
        replace(training_plan, loaded=replace(loaded, network=plain)),
        replace(job, network=plain, accelerator=accelerator),
        replace(trained, initial_tensors=start),
    )


class OnProcessor:
    """The accelerator of a run whose whole model is too large for one device: all else as it is."""

    def __init__(self, accelerator: Accelerator) -> None:
        import torch

        self._accelerator = accelerator
        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)


def _scoring_accelerator(job: Job, training_plan: TrainingPlan) -> Any:
    """Where the first process holds the whole model to score it: on its device if that has room."""
    need, free = weight_bytes(training_plan.prepared.loaded.network) / MB, tightest_limit().left_mb
    if not on_gpu() or MEMORY_FACTOR * need <= free:
        return job.accelerator
    because = (
        f"the whole model takes {need:,.0f} MB, and its device has {free:,.0f}: the first process "
        "scores it in its own memory, which takes its time"
    )
    decision = Decision("scoring", "on the processor", because, prominent=True)
    job.journal.decide(job.plan.steps, decision)
    return OnProcessor(job.accelerator)


def _check_launcher(launcher_asks: bool) -> None:
    version = os.environ.get(VERSION, "1")
    if launcher_asks and version != "2":
        raise MachineError(
            VERSION,
            "must be 2: the first FSDP keeps weights flat, of which no row-wise part can be kept",
            version,
            "Start it with accelerate launch --use_fsdp --fsdp_version 2.",
        )
    if _is_set(OFFLOAD):
        raise MachineError(
            OFFLOAD,
            "is not followed: weights stay on their devices",
            os.environ[OFFLOAD],
            "Leave --fsdp_offload_params out.",
        )


def _check_recipe(recipe: Recipe) -> None:
    """Refuse what reaches into weights or gradients by itself."""
    if recipe.task not in DECODER_TASKS:
        raise RecipeError(
            SETTING,
            f"is not built for {recipe.task}",
            recipe.train.shard,
            f"Set it to off; it is there for {' and '.join(DECODER_TASKS)}.",
        )
    adapter, methods, policy = (
        recipe.model.adapter.kind,
        extra_methods(recipe),
        recipe.control.policy,
    )
    unsupported = {
        "model.adapter.kind": adapter if adapter not in ADAPTERS else None,
        "model.quantize": None if recipe.model.quantize == "none" else recipe.model.quantize,
        "methods": ", ".join(methods) or None,
        "control.policy": None if policy in ("stop", "off") else policy,
        "texts written at every look": "generate.watch or train.metric"
        if watches(recipe)
        else None,
        "train.optimizer": recipe.train.optimizer
        if (recipe.train.optimizer or "").startswith("paged")
        else None,
        "train.precision": recipe.train.precision if recipe.train.precision == "float16" else None,
    }
    for key, value in unsupported.items():
        if value is not None:
            rule = f"cannot be used on weights that {SETTING} spreads"
            raise RecipeError(key, rule, value, LEAVE_OUT)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
