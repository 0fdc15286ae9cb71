"""What a model's written answers show, beside those of the model that it began from."""
