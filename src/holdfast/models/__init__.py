"""From a name to backbone, tokenizer and head; layers in order; freezing; plain saving; the linear
probe.

Nothing heavy is imported here: each module of this room is imported by whoever needs it.
"""
