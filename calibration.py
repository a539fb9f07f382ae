"""A temperature that makes probabilities believable.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
from numpy.typing import NDArray

import metrics

COLDEST, HOTTEST = 0.05, 20.0
SPREAD = 0.35  # standard deviation of log T before anything is seen: seven in ten temperatures are from 0.7 to 1.4


def fit_temperature(logits: NDArray, labels: NDArray) -> float:
    """The temperature, from 0.05 to 20, to divide logits by: the most probable one given logits `(U, C)` and labels
    `(U,)` of validation utterances. (Fitted on those that are reported, it would flatter.) The classes predicted stay.

    It makes the labels likely, but stays near 1 while they are few: thirty utterances, nearly all of them recognised,
    as one speaker's may be, would else give a temperature of 0.1, with which every error is made with certainty. With
    some hundred errors it is the likeliest one, as in the paper. Raises ValueError for no utterances.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise ValueError("no utterances to fit a temperature on")

    def surprise(log_t: float) -> float:
        return len(labels) * metrics.cross_entropy(logits, labels, float(np.exp(log_t))) + (log_t / SPREAD) ** 2 / 2

    # by steps first, as there can be two minima: where a network has hardly learned, its logits are small
    grid = np.linspace(np.log(COLDEST), np.log(HOTTEST), 61)
    best = int(np.argmin([surprise(log_t) for log_t in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, 60)]
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
