"""The conversations with whichever language model is in service."""

from __future__ import annotations

import asyncio
import threading

from holdfast.plugins.service.chat.conversations import ChatBounds, Chats, Within, at_once
from holdfast.plugins.service.records import ServiceEngine
from holdfast.plugins.service.settings import Serving


def open_chats(engine: ServiceEngine, settings: Serving) -> Chats | None:
    """Conversations with the model that ``engine`` holds, asked by the engine's one thread; not
    warm yet. ``None`` where it is no causal language model."""
    use, thread = getattr(engine, "use", None), getattr(engine, "thread", None)
    # Between two turns of the rows that the engine answers.
    within: Within = at_once if thread is None else lambda job: thread.run(job).result()
    bounds = ChatBounds(
        together=settings.chat_together,
        waiting=settings.chat_waiting,
        deadline_s=settings.chat_timeout_s,
    )
    facts = engine.facts
    return Chats.of(use, facts.run.resolve().name, mark=facts.model, within=within, bounds=bounds)


class Following:
    """The conversations of the model in service, also after another was promoted into its place:
    the next one is with that model, and those that were taken on end with the one before.

    ``chats`` are those of the first model, where they are there already.
    """

    def __init__(
        self, engine: ServiceEngine, settings: Serving, chats: Chats | None = None
    ) -> None:
        self._engine, self._settings = engine, settings
        self._lock = asyncio.Lock()
        self._of = None if chats is None else shown_of(engine)
        self._chats = chats

    def warm(self) -> None:
        """Be ready for the model that is in service now. Blocks."""
        shown = shown_of(self._engine)
        chats = open_chats(shown, self._settings)
        if chats is not None:
            chats.warm()
        self._of, self._chats = shown, chats

    async def now(self) -> Chats | None:
        """The conversations with the model in service; ``None`` where it is no language model."""
        if self._of is shown_of(self._engine):
            return self._chats
        async with self._lock:
            if self._of is not shown_of(self._engine):
                before = self._chats
                await asyncio.to_thread(self.warm)
                if before is not None:
                    threading.Thread(target=before.drain, daemon=True).start()
        return self._chats

    def figures(self) -> dict[str, float]:
        """Numbers for /metrics, of the model in service."""
        return {} if self._chats is None else self._chats.figures()

    def drain(self) -> None:
        """Take on no more, and end those that were taken on."""
        if self._chats is not None:
            self._chats.drain()


def shown_of(engine: ServiceEngine) -> ServiceEngine:
    """The engine that answers, where several stand in a line."""
    shown: ServiceEngine = getattr(engine, "shown", engine)
    return shown
