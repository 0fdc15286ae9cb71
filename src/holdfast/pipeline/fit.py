"""One fit: rows by position and settings in, a trained model as a value out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.core.records import Decision, Finding, Ints
from holdfast.pipeline.compose import Place, make_accelerator, make_job, make_ready
from holdfast.pipeline.keep import kept_state
from holdfast.pipeline.ready import Fitted, Prepared
from holdfast.pipeline.rows import notify_all
from holdfast.training.loop import fit as train

if TYPE_CHECKING:
    from holdfast.pipeline.run_folder import RunFolder


def fit(
    prepared: Prepared,
    train_positions: Ints,
    valid_positions: Ints,
    settings: Mapping[str, Any] | Sequence[str] = (),
    *,
    into: RunFolder | None = None,
    listeners: Sequence[Any] = (),
    notify: Callable[[Decision | Finding], None] = lambda _: None,
) -> Fitted:
    """Train on the rows at ``train_positions`` of what is prepared, judged by those at
    ``valid_positions``, and keep the best state.

    A fit is a value: it begins with the weights that were loaded, reads no file, loads no model and
    encodes no row, and what it gives is, bit for bit, what a process of its own gives that prepares
    the same. No fit sees another. ``settings`` are its own (``{"train.epochs": 5}``); what they and
    the recipe leave open is worked out from these training rows.

    ``into`` is the run's folder where it is written as it goes, so that it can be resumed; without
    it nothing is. ``listeners`` join the loop's own; ``notify`` hears every decision and finding as
    it is made.

    Raises ``RecipeError`` for settings that cannot be followed, ``MachineError`` where memory does
    not suffice, ``TrainingError`` where a loss is no number, ``Interrupted`` where the user stops,
    ``Defect`` for positions that are no division: of rows that are not there, or on both sides.
    Which rows must not be parted (``prepared.units``) is the caller's to respect.
    """
    start = time.perf_counter()
    kept_in = into.kept_in if into else None
    ready = make_ready(prepared, train_positions, valid_positions, settings, kept_in)
    notify_all(notify, ready.decisions, ready.findings)
    accelerator = make_accelerator(ready.recipe.train.precision)
    place = into.begin(ready, accelerator) if into else Place()
    job, of_kind = make_job(ready, accelerator, place, listeners, notify)
    until_the_loop = time.perf_counter() - start
    trained = train(job, place.resume)
    kept = kept_state(ready, of_kind, trained)
    job.journal.note(trained.last_step, kept.what, kept.because, chosen=kept.chosen)
    notify(kept)
    return Fitted(ready, job, of_kind, trained, kept, until_the_loop + trained.train_s, place.begun)
