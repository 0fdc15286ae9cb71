"""Conversations with a run's generative model."""

from __future__ import annotations

from holdfast.core.discovery import Entry

CHAT = Entry(
    "holdfast.plugins.chat.command",
    "Chat with a run's language model and its base model",
    "holdfast chat runs/helper-1",
    "holdfast chat runs/helper-1 --message 'How do I reset it?' --start",
    "holdfast chat runs/helper-1 --json < questions.txt",
    imports="torch",
)
