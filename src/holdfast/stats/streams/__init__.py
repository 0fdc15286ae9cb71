"""Sequential tests: rows arrive one by one, and the evidence is valid at any stopping time."""
