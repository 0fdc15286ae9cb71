"""The questions that every fitted run is asked, one a file (``pipeline/question.py`` is their
contract)."""
