"""The vocabulary that every room shares: errors, records, events, seeds, discovery.

Standard library and NumPy only.
"""
