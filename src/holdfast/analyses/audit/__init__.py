"""What in the rows would spoil a training: every check, over any source."""
