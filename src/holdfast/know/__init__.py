"""What a finished model answers, turned into what a person wants to know of it before they rely on
it: found on validation rows, confirmed once on test rows."""
