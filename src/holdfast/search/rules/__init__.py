"""The rules of a search as pure functions of what its trials said of the validation rows: which
setting to take, what to expect of it on rows to come, when to end, whom to drop, where to begin."""
