"""The role of each column: text, label, group, extra feature."""
