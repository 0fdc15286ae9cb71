"""From a model's name to backbone, tokenizer and head; layers in order; freezing; saving; the
linear probe.

Nothing heavy is imported here: each module of this package is imported where it is used.
"""
