"""Every number that a rule of this room compares with, in one place, each with its reason.

A rule fires on two things together: a difference that chance does not explain, and one that is
large enough to matter. The first kind of number is an error, the second a size.
"""

from __future__ import annotations

# -- errors: the 5 % of false alarms that a whole run may have, shared out ------------------------
# ``overfit`` asks the hardest question of the fewest rows, so it gets most of it. The tests of the
# other alarms are made at every look, so their level is far below their share.
OVERFIT = 0.035
MISCALIBRATED = 0.01
RARE = 0.999  # the level of an interval that an alarm reads at each look: one side, 0.05 % a look
USUAL = 0.95  # the level of every interval that is shown or decides between two quiet labels

# -- sizes ---------------------------------------------------------------------------------------
MARGIN_SHARE, MARGIN = 0.05, 0.02  # of the best loss, and in its unit: too small to matter
TRIVIAL_SHARE = (
    0.01  # of the best loss: a rise below it is no overfitting, however many rows say so
)
WINDOW = 3  # looks: "recently" is against the look so many before
END = 0.9  # of the planned steps: from here on the end of a run is judged

FITTED = 0.105  # a row is fitted when its loss is below this: its answer has 90 % or more (−ln 0.9)
FLOOR_SHARE = 0.95  # of the rows of the train probe are fitted: its loss is at its floor
FLOOR_OF_VALID = 0.25  # and its mean is below this part of the validation loss
BEYOND = 0.05  # the share of fitted rows is at least so much higher than on validation
HALVED = 0.5  # the train probe fell to this part since validation last gained: the gap grows

NOTHING_LEARNED = 0.95  # of the loss of always giving the class frequencies
STEEP = 0.10  # of the loss lost over the last quarter of the steps: still falling steeply
GAVE_BACK = 0.5  # of what the train probe had learned: diverging
ABOVE_START = 0.1  # of the first loss of the train probe: diverging
BUMP = 0.10  # of the look before: a rise of the train probe, of which two are oscillation
JUMP = 10.0  # times the median gradient norm: a spike
STILL = 0.002  # ‖w − w₀‖ ÷ ‖w₀‖: weights that have hardly moved
LINEAR = 0.6  # the second half of a fall brought at least this part of the first: no bend yet

SURE_SHARE = 0.25  # of the rows, the surest answers: a clean model is right about nearly all
SURE_WRONG = 0.04  # of them wrong: more than clean sets have (1–4 % of wrong labels, 2103.14749)
SURE_TO_ALL = 0.4  # the surest are wrong at least so often compared with all: errors know no doubt
LEARNED = 0.7  # of the errors of chance: above it there is nothing that labels could contradict

COPIED = 0.5  # of the rows copy their source: the task is copying
REPAIRED = 0.7  # of the rows that a linear probe gets wrong are fitted: nothing general does that
REPAIRED_ROWS = 10  # such rows at least

FORGOTTEN = 0.05  # of the first loss on the general probe
PRIMACY = 0.2  # Spearman's ρ between the first sight of a row and how little it was fitted
FEW_ROWS_GAIN = 0.05  # of its loss that the linear probe gains by doubling its rows
MOST_A_ROW, SMALL = 150_000, 40_000_000  # learning parameters: pipeline/size.py says why
DISPARITY = 0.05  # of the rows: a gap of a metric worth naming
REPEATS = 0.2  # of the generated texts
