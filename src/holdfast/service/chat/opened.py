"""The conversations of an engine that answers by a language model."""

from __future__ import annotations

from holdfast.service.asked import Engine
from holdfast.service.chat.conversations import Bounds, Chats, Within, at_once
from holdfast.service.settings import Serving


def open_chats(engine: Engine, settings: Serving) -> Chats | None:
    """Conversations with the model that ``engine`` holds, asked by the engine's one thread; not
    warm yet. ``None`` where it is no causal language model."""
    use, thread = getattr(engine, "use", None), getattr(engine, "thread", None)
    # Between two turns of the rows that the engine answers.
    within: Within = at_once if thread is None else lambda job: thread.run(job).result()
    bounds = Bounds(
        together=settings.chat_together,
        waiting=settings.chat_waiting,
        deadline_s=settings.chat_timeout_s,
    )
    facts = engine.facts
    return Chats.of(use, facts.run.resolve().name, mark=facts.model, within=within, bounds=bounds)
