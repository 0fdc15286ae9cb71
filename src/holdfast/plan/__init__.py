"""From a recipe to settings: the default recipe, adapters, memory, the task."""
