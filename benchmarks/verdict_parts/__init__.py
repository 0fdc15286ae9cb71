"""The parts of ``verdicts.py``, one demand of the guard each."""
