"""How often the comparisons of models that write find something where there is nothing to find, as
``benchmarks/generators.py`` measured it."""

FALSE_ALARMS = (
    "False alarms: of 2,000 runs of two equal models, 100 answers to prompts of either side, 2.5 % "
    "had any share that differs (1.9 to 3.3)."
)
JUDGED_ALARMS = (
    "False alarms: of 2,000 runs of two equal models, 30 answers judged by coins against both ways "
    "of asking, 3.4 % had a winner (2.6 to 4.2)."
)
