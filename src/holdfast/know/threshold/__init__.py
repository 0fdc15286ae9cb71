"""From which certainty on a model should answer, and what may be promised of the answers."""
