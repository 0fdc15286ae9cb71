"""Many fits on the same rows: folds, trials, other models, other sizes; each one is the one
``fit``, and none of them sees a test row."""
