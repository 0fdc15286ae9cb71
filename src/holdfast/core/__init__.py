"""The vocabulary that all packages share: errors, records, events, seeds, discovery.

Standard library and NumPy only.
"""
