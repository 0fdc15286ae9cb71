"""From a recipe to settings: the default table, adapters, memory, the task."""
