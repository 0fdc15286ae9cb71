"""From which predicted probability on a model should answer."""
