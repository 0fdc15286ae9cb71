"""Decide whether to shard a run's weights over its processes (FSDP), refuse settings that cannot be
sharded, and gather the weights into a plain network at the end."""

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
from holdfast.plan.control import PASSIVE_POLICIES
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
# The environment variable that ``accelerate launch --use_fsdp`` sets for its processes.
LAUNCHED, VERSION, OFFLOAD = "ACCELERATE_USE_FSDP", "FSDP_VERSION", "FSDP_OFFLOAD_PARAMS"
RESHARD, LOADING = "FSDP_RESHARD_AFTER_FORWARD", "FSDP_CPU_RAM_EFFICIENT_LOADING"
# The memory to score a model, relative to its weights: with the computation on a few rows.
MEMORY_FACTOR = 1.3
LEAVE_OUT = f"Leave it out, or train with --set {SETTING}=off."


def choose_sharding(recipe: Recipe) -> str:
    """``full`` or ``off``, with the reason where several processes train.

    Call it before the model is loaded. Raises ``RecipeError`` for settings that do not support
    sharded weights, ``MachineError`` for launcher settings that are not supported.
    """
    requested, count, launcher_asks = recipe.train.shard, process_count(), _is_set(LAUNCHED)
    if requested == "full" and count == 1:
        rule = "shards weights over several processes, but this run has only one"
        remedy = "Start it with torchrun or accelerate launch, or remove the setting."
        raise RecipeError(SETTING, rule, requested, remedy)
    if requested == "off" or (requested == "auto" and not launcher_asks):
        because = (
            "set in the recipe" if requested == "off" else "the launcher does not request FSDP"
        )
        if count > 1:
            notify(Decision(SETTING, "off", f"{because}: each process holds the full model"))
        return "off"
    if count == 1:
        because = "the launcher requests FSDP, but there is only one process"
        notify(Decision(SETTING, "off", because))
        return "off"
    _check_launcher(launcher_asks)
    _check_recipe(recipe)
    # Otherwise Transformers would give empty weights to all processes but the first.
    os.environ[LOADING] = "false"
    why = "accelerate launch requests FSDP 2" if requested == "auto" else "set in the recipe"
    because = (
        f"{why}: each of {count} processes holds a shard of every weight, gradient and optimizer "
        "state; each first loads the full model into CPU memory"
    )
    notify(Decision(SETTING, f"full, over {count} processes", because))
    return "full"


def shard_of(recipe: Recipe, accelerator: Accelerator) -> tuple[int, int]:
    """The index of this process's shard of the weights, and the number of shards."""
    if recipe.train.shard != "full":
        return 0, 1
    return accelerator.process_index, accelerator.num_processes


def shard_network(network: Network, accelerator: Accelerator, precision: str) -> None:
    """Shard a trainable network as the launcher says."""
    before = {name: id(parameter) for name, parameter in network.named_parameters()}
    shard(network, accelerator, precision, reshard=os.environ.get(RESHARD, "true") != "false")
    after = dict(network.named_parameters())
    renumber(network, {number: id(after[name]) for name, number in before.items()})


def gather_model(
    training_plan: TrainingPlan, job: Job, trained: TrainingResult
) -> tuple[TrainingPlan, Job, TrainingResult]:
    """The same with a plain network at the best checkpoint, in the first process, which saves and
    scores it.

    Frozen weights are still in CPU memory as they were loaded, so only trained weights are
    gathered, one at a time.
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
    """The accelerator of a run whose full model is too large for one device: it only replaces the
    device with the CPU."""

    def __init__(self, accelerator: Accelerator) -> None:
        import torch

        self._accelerator = accelerator
        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)


def _scoring_accelerator(job: Job, training_plan: TrainingPlan) -> Any:
    """The accelerator that scores the full model in the first process: on its device if the model
    fits there."""
    need, free = weight_bytes(training_plan.prepared.loaded.network) / MB, tightest_limit().left_mb
    if not on_gpu() or MEMORY_FACTOR * need <= free:
        return job.accelerator
    because = (
        f"the full model takes {need:,.0f} MB, and its device has {free:,.0f} MB: the first "
        "process scores it in CPU memory, which is slow"
    )
    decision = Decision("scoring", "on the CPU", because, prominent=True)
    job.journal.decide(job.plan.steps, decision)
    return OnProcessor(job.accelerator)


def _check_launcher(launcher_asks: bool) -> None:
    version = os.environ.get(VERSION, "1")
    if launcher_asks and version != "2":
        rule = "must be 2: FSDP 1 flattens weights, so they cannot be sharded by rows"
        remedy = "Start it with accelerate launch --use_fsdp --fsdp_version 2."
        raise MachineError(VERSION, rule, version, remedy)
    if _is_set(OFFLOAD):
        rule = "is not supported: weights stay on their devices"
        raise MachineError(OFFLOAD, rule, os.environ[OFFLOAD], "Remove --fsdp_offload_params.")


def _check_recipe(recipe: Recipe) -> None:
    """Refuse settings that access weights or gradients directly."""
    if recipe.task not in DECODER_TASKS:
        remedy = f"Set it to off; it is supported for {' and '.join(DECODER_TASKS)}."
        raise RecipeError(
            SETTING, f"is not supported for {recipe.task}", recipe.train.shard, remedy
        )
    adapter, methods, policy = (
        recipe.model.adapter.method,
        extra_methods(recipe),
        recipe.control.policy,
    )
    unsupported = {
        "model.adapter.kind": adapter if adapter not in ADAPTERS else None,
        "model.quantize": None if recipe.model.quantize == "none" else recipe.model.quantize,
        "methods": ", ".join(methods) or None,
        "control.policy": None if policy in (None, *PASSIVE_POLICIES) else policy,
        "texts generated at every evaluation": "generate.watch or train.metric"
        if watches(recipe)
        else None,
        "train.optimizer": recipe.train.optimizer
        if (recipe.train.optimizer or "").startswith("paged")
        else None,
        "train.precision": recipe.train.precision if recipe.train.precision == "float16" else None,
    }
    for key, value in unsupported.items():
        if value is not None:
            rule = f"cannot be used on weights that {SETTING} shards"
            raise RecipeError(key, rule, value, LEAVE_OUT)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
