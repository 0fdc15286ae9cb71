"""Arrays to numbers with reasons: intervals, resampling, paired comparison, tests valid under
repeated looks, change points, trend, temperature."""
