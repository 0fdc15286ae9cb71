"""Records to pages: the report, and the model card, from the files of a run folder alone."""
