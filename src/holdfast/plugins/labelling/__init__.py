"""Which rows to label next, and how labels are resolved: pure functions of predictions and
labels.
"""
