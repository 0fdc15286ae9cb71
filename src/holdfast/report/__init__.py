"""The report and the model card of a run, built from the files of its run folder only."""
