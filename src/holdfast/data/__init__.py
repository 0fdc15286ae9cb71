"""From a file, a folder or a hub name to a ``Table``, and the three kinds of split."""
