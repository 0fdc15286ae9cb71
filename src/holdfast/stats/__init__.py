"""Statistics: intervals, resampling, paired comparison, tests that stay valid when repeated,
learning-rate curves, temperature. Functions take arrays and return numbers, with a reason where a
number is undefined."""
