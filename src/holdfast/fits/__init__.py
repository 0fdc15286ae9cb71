"""One fit: make its plan, compose its parts, run the training loop, and return the result."""
