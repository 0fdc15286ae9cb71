"""Every threshold of the detectors, in one place, each with its reason.

A rule fires on two conditions together: a significant difference, and one that is large enough to
matter. The first kind of number is an error rate or level, the second an effect size.
"""

from __future__ import annotations

# -- error rates: the 5 % of false alarms allowed per run, divided among the tests -----------------
# A reader sees the raw validation loss rise, so its test gets most of the 5 %. The tests of the
# other alarms are made at every evaluation, so their level is far below their share.
RAW_ROSE = 0.04
REFINED_ROSE = 0.01
ALARM_LEVEL = 0.999  # of the interval that an alarm reads at each evaluation: one-sided 0.05 %
INTERVAL_LEVEL = 0.95  # of every interval that is shown or decides between two quiet labels
LIKELY = 0.8  # probability at which a large gap with a higher validation loss is reported

# -- effect sizes --------------------------------------------------------------------------------
MARGIN_SHARE, MARGIN = 0.05, 0.02  # of the best loss, and in its unit: too small to matter
MOST_MARGIN = 0.1  # nats: 10 % more perplexity is visible, however high the loss of a text is
TRIVIAL_SHARE = (
    0.01  # of the best loss: a smaller rise is no overfitting, however many rows show it
)
TRIVIAL = 5e-4  # nats: rounds to zero in three decimals, however small the loss
GAP = 0.10  # accuracy: a gap between training and validation that anyone would call large
GIVEN_BACK = 0.5  # of the best checkpoint's gain over the class frequencies
FEWEST_ROWS = 36  # validation rows: of 36 that did not change, 9.7 % may yet (1 − 0.025^(1/36))
WINDOW = 3  # "recently" compares with the evaluation this many before, within the last half
END = 0.9  # of the planned steps: from here on the end of a run is judged

FITTED = 0.105  # a row is fitted when its loss is below this: probability 90 % or more (−ln 0.9)
FLOOR_SHARE = 0.95  # of the training sample is fitted: its loss is near zero
FLOOR_OF_VALID = 0.25  # and its mean loss is below this share of the validation loss
BEYOND = 0.05  # the share of fitted rows exceeds that of the validation rows by at least this
TRAIN_LOSS_LEFT = 0.02  # of the training loss is left since validation last improved
WAIT = 3  # evaluations without better predictions: then a memorized run has nothing to wait for

NOTHING_LEARNED_SHARE = 0.95  # of the loss of the class frequencies, or of the first loss
STEEP = 0.10  # of the loss in the last part of the run: still falling steeply
GAVE_BACK = 0.5  # of what the training sample had gained: diverging
ABOVE_START = 0.1  # of the first loss of the training sample: diverging
BUMP, BIG_BUMP = 0.10, 0.5  # of the previous training loss: two such rises, or one big one
BLOWN = 3.5  # times the loss of the class frequencies: logits far too large
JUMP = 10.0  # times the median gradient norm so far: a spike
LINEAR = 0.6  # the second half of a fall brought at least this share of the first: no bend yet
SLOW = 0.5  # of the first training loss is left: training has hardly begun

WRONG_LEVEL = 0.9  # of the interval of the share of wrong labels: an error of 5 % on each side
OWN_PREDICTIONS_LEVEL = 0.98  # the same from a run's own predictions: no second model agrees
KNOWS = 0.2  # of the rows that the most frequent class gets wrong: below it, too poor to judge
WRONG_LABELS = 0.05  # of the labels: overlapping classes in clean data look like this many
MANY_WRONG = 0.10  # of the labels: with fewer, an overfit run is overfit, and they are its cause
BIG_RISE = 0.5  # of the best loss: with such a rise a gap that is more likely than not is enough
INFORMED_SHARE = 0.9  # of the loss of the class frequencies: below it predictions tell something
BELOW_CHANCE_SHARE = 0.995  # of the loss of the class frequencies: above it nothing contradicts

COPIED = 0.5  # of the targets equal their source: the task is copying
TWINS = 0.05  # of the validation rows have a duplicate in training: more than a good split leaves
EARLY = 0.85  # training accuracy: from here only memory corrects wrong rows (up to 0.43 observed)
REPAIRED = 0.6  # of such validation rows are fitted at the end, net of lost ones (whole interval)
REPAIRED_ROWS = 8  # at least this many such rows

FORGOTTEN = 0.05  # of the first loss on the general-text set
PRIMACY = 0.2  # Spearman's ρ between the first use of a row and how little it was fitted
FEW_ROWS_GAIN = 0.05  # of its loss that the linear probe gains by doubling its rows
SOLVED_LOSS = 0.1  # nats of validation loss, below which more rows hardly help
MOST_A_ROW, SMALL = 150_000, 40_000_000  # trainable parameters: fits/compose.py says why
DISPARITY = 0.05  # accuracy: a gap worth reporting
REPEATS = 0.2  # of the generated texts


def margin_of(loss: float) -> float:
    """The difference from ``loss`` that is too small to matter: 5 % of it, from 0.02 to 0.1."""
    return max(MARGIN, min(MARGIN_SHARE * loss, MOST_MARGIN))
