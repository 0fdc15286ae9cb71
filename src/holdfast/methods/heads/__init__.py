"""Methods of the last layer."""
