"""Is the model larger than the rows need?"""
