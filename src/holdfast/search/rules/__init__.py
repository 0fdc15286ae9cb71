"""The decision rules of a search as pure functions of the trials' validation scores: which
configuration to choose, which score to expect, when to stop, which trials to drop, where to begin.
"""
