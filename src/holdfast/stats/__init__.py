"""Arrays to numbers with reasons: intervals, resampling, paired comparison, temperature, trend."""
