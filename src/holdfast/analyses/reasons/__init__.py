"""Why a model said what it said of a row: what each part of the row adds to the answer, and whether
that is any better than parts named at random."""
