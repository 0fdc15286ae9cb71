"""From a model's name to checked files, a tokenizer and weights."""
