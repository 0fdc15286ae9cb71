"""What all tasks that write text share when the parts are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from holdfast.contract.fit import Finish
from holdfast.contract.inference import Score
from holdfast.contract.run_folder import RECIPE, need_run
from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.core.records import Estimate, Floats, Ints, Scores
from holdfast.data.table import Table
from holdfast.metrics import TEXT_METRICS, Metric
from holdfast.metrics import find_text_metric as find_written
from holdfast.models.generators.average import Averaged
from holdfast.recipe import Recipe, read_recipe
from holdfast.stats.ratio import loss_rows
from holdfast.tasks.generation.losses import WATCHED
from holdfast.tasks.generation.token_scores import TokenOutputs, score_tokens
from holdfast.training.batches import probe_positions
from holdfast.training.task import of_whole_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.generators.causal import CausalNetwork
    from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork
    from holdfast.training.task import Examples


def find_text_metric(name: str) -> Metric:
    """What ``train.metric`` may name here, by its name and direction: a number of tokens, which
    every snapshot measures, or of written texts (see ``watching``)."""
    if name in WATCHED:
        return _criterion(name, WATCHED[name], float("inf"))
    if name in TEXT_METRICS or ".py:" in name:
        found = find_written(name)
        return _criterion(found.name, found.higher_is_better, found.high)
    raise RecipeError(
        "train.metric",
        "is not measured at the snapshots of a task that writes text",
        name,
        nearest(name, ["loss", "refined_loss", *WATCHED, *TEXT_METRICS]),
    )


def _criterion(name: str, higher: bool, high: float) -> Metric:
    return Metric(name, higher, 0.0, high, lambda outputs, classes: None)


def other_rows(finish: Finish) -> dict[str, Any]:
    """``valid`` and ``train_probe``: the restored best state, in the precision of the training."""
    ready = finish.ready
    everything = np.arange(len(ready.valid))
    probe = probe_positions(ready.train.rows, ready.plan.probe_rows, ready.plan.seed)

    def block(examples: Examples, positions: Ints) -> dict[str, Any]:
        losses, kept = finish.fitted.measure(examples, positions)
        outputs = TokenOutputs(
            examples.rows[positions], losses, kept[:, 0].astype(np.int64), kept[:, 1]
        )
        return score_tokens(outputs, seed=ready.recipe.seed).to_json()

    return {"valid": block(ready.valid, everything), "train_probe": block(ready.train, probe)}


def noted(scores: Mapping[str, Estimate], n: int, rows: int) -> dict[str, Estimate]:
    """The scores of generated texts, saying of how many rows they are."""
    of = f"of {n} generated rows" if n == rows else f"of a fixed sample of {n} of {rows} rows"
    return {
        name: replace(found, note="; ".join([of, *filter(None, [found.note])]))
        for name, found in scores.items()
    }


def texts_column(examples: Any, table: Table, name: str) -> list[str]:
    """A column of the rows that are used."""
    column: list[str] = table.take(examples.kept).column(name)
    return column


def the_runs(runs: Sequence[Path]) -> Recipe:
    """The recipe of the first of the finished runs that write, by which all of them do."""
    for run in runs:
        need_run(run)
    return read_recipe(runs[0] / RECIPE)


N = TypeVar("N")


def together(networks: Sequence[N], tokenizers: Sequence[PreTrainedTokenizerBase]) -> N | Averaged:
    """One network, or several that write as one: at each place by the mean of their probabilities
    of the next token. Raises ``RecipeError`` where their vocabularies or forms of a chat differ."""
    if len(networks) == 1:
        return networks[0]
    first = tokenizers[0]
    for one in tokenizers[1:]:
        same = one.get_vocab() == first.get_vocab()
        if not same or one.chat_template != first.chat_template:
            raise RecipeError(
                "the texts of several runs",
                "can be averaged, token by token, only where their "
                f"{'chat template' if same else 'vocabulary'} is the same",
                None,
                "Name runs of one model, or one run.",
            )
    return Averaged(networks)


def networks_of(network: CausalNetwork | Seq2SeqNetwork | Averaged) -> tuple[Any, ...]:
    """The networks that write as one."""
    return network.networks if isinstance(network, Averaged) else (network,)


def plain_of(network: CausalNetwork | Seq2SeqNetwork) -> Any:
    """The module of a network that writes."""
    return network.plain


def losses_at_rows(losses: Floats, places: Ints, n: int) -> Floats:
    """The losses of examples as those of the ``n`` rows that they are of; NaN where none is."""
    found = np.full(n, np.nan)
    found[places] = losses
    return found


def loss_of_rows(losses: Floats, tokens: Ints, places: Ints, n: int) -> Floats:
    """The rows [n] of the mean loss over all tokens (``stats/ratio.py``), from the mean ``losses``
    over so many ``tokens`` of examples, which are parts of the rows at these ``places``; NaN where
    a row has none."""
    means, counts = of_whole_rows(losses, tokens, places)
    return losses_at_rows(loss_rows(means, counts), np.unique(places), n)


def asked_again(score: Callable[[Table], Scores], table: Table) -> Score:
    """What scores labelled rows by asking the model anew: a sample of some rows is other rows than
    some rows of a sample."""

    def score_some(positions: Ints | None = None) -> Scores:
        return score(table if positions is None else table.take(positions))

    return score_some


def best_device() -> Any:
    """A GPU where there is one: writing text on a processor is slow."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
