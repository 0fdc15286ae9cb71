"""Chats, instructions and plain text."""
