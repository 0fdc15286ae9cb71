"""A text for each text, by an encoder and a decoder."""
