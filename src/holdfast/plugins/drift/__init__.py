"""Are arriving rows like those that a model was judged by, and is it as right about them?"""
