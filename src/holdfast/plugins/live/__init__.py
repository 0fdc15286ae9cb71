"""A model in service and a challenger, compared while they answer: evidence that is valid at every
look, from labels or from what came of the answers outside."""
