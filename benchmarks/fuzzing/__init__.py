"""Parts of ``benchmarks/fuzz.py``: what is mutated, how, and where it is fed in."""
