"""Every number that a rule of this room compares with, in one place, each with its reason.

A rule fires on two things together: a difference that chance does not explain, and one that is
large enough to matter. The first kind of number is an error, the second a size.
"""

from __future__ import annotations

# -- errors: the 5 % of false alarms that a whole run may have, shared out ------------------------
# The raw validation loss is what a person sees rise, so its test gets most of it. The tests of the
# other alarms are made at every look, so their level is far below their share.
RAW_ROSE = 0.04
REFINED_ROSE = 0.01
ALARM_LEVEL = 0.999  # of the interval that an alarm reads at each evaluation: one side, 0.05 %
INTERVAL_LEVEL = 0.95  # of every interval that is shown or decides between two quiet labels
LIKELY = 0.8  # the probability from which a large gap beside a loss that stands higher is named

# -- sizes ---------------------------------------------------------------------------------------
MARGIN_SHARE, MARGIN = 0.05, 0.02  # of the best loss, and in its unit: too small to matter
TRIVIAL_SHARE = (
    0.01  # of the best loss: a rise below it is no overfitting, however many rows say so
)
TRIVIAL = 5e-4  # nats: what three decimals show as nothing, however small the loss
GAP = 0.10  # of the rows right: a gap between training and validation that anyone would call large
GIVEN_BACK = 0.5  # of the best state's gain over the class frequencies
FEWEST_ROWS = 36  # validation rows: of 36 that did not change, 9.7 % may yet (1 − 0.025^(1/36))
WINDOW = 3  # looks: "recently" is against the look so many before
END = 0.9  # of the planned steps: from here on the end of a run is judged

FITTED = 0.105  # a row is fitted when its loss is below this: its answer has 90 % or more (−ln 0.9)
FLOOR_SHARE = 0.95  # of the rows of the train probe are fitted: its loss is at its floor
FLOOR_OF_VALID = 0.25  # and its mean is below this part of the validation loss
BEYOND = 0.05  # the share of fitted rows is at least so much higher than on validation
TRAIN_LOSS_LEFT = 0.02  # of the probe loss is left since validation last gained: the gap grows
WAIT = 3  # looks without a gain of the answers, then a run at its floor has nothing to wait for

NOTHING_LEARNED_SHARE = 0.95  # of the loss of the class frequencies, or of the first loss
STEEP = 0.10  # of the loss lost over the last quarter of the steps: still falling steeply
GAVE_BACK = 0.5  # of what the train probe had learned: diverging
ABOVE_START = 0.1  # of the first loss of the train probe: diverging
BUMP, BIG_BUMP = 0.10, 0.5  # of the look before: two rises of the train probe, or a big one
BLOWN = 3.5  # times the loss of the class frequencies: logits out of all proportion
JUMP = 10.0  # times the median gradient norm so far: a spike
LINEAR = 0.6  # the second half of a fall brought at least this part of the first: no bend yet
SLOW = 0.5  # of its first loss is left to the train probe: it has hardly begun

WRONG_LEVEL = 0.9  # of the interval of the share of wrong labels: each side has an error of 5 %
OWN_PREDICTIONS_LEVEL = 0.98  # of that by a run's own answers: no second model says the same
KNOWS = 0.2  # of what the commonest class gets wrong: below it answers are too ignorant
WRONG_LABELS = 0.05  # of the labels: classes that overlap look like so many on clean sets
MANY_WRONG = 0.10  # of the labels: below it an overfit run is one, and they are its cause
BIG_RISE = 0.5  # of the best loss: beside it a gap that is more likely than not is enough
BELOW_CHANCE_SHARE = 0.995  # of the loss of the class frequencies: above it nothing contradicts

COPIED = 0.5  # of the rows copy their source: the task is copying
TWINS = 0.05  # of the validation rows have a twin in training: more than a careful division leaves
EARLY = 0.85  # of the train probe is right: what is wrong now, only memory mends (up to 0.43 seen)
REPAIRED = 0.6  # of such validation rows are fitted in the end, net of lost ones, by all of it
REPAIRED_ROWS = 8  # such rows at least

FORGOTTEN = 0.05  # of the first loss on the general probe
PRIMACY = 0.2  # Spearman's ρ between the first sight of a row and how little it was fitted
FEW_ROWS_GAIN = 0.05  # of its loss that the linear probe gains by doubling its rows
MOST_A_ROW, SMALL = 150_000, 40_000_000  # learning parameters: fits/compose.py says why
DISPARITY = 0.05  # of the rows: a gap of a metric worth naming
REPEATS = 0.2  # of the generated texts
