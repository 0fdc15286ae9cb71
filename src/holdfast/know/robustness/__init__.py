"""Whether answers survive what says nothing: typing errors, another case, noise in a picture."""
