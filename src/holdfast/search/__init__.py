"""Many fits on the same rows: folds, trials, other models, other sizes. Each uses the same ``fit``,
and none sees a test row."""
