"""What ``benchmarks/forgetting.py`` is made of."""
