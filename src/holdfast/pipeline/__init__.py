"""The main job: ``main.py`` reads as the sentence."""
