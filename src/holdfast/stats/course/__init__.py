"""Is a run worse than its best, when it is evaluated again and again on the same rows?"""
