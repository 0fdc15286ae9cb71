"""Reading a file, a folder or a hub data set into a ``Table``, and the three types of split."""
