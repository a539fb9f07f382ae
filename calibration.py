"""A temperature that makes probabilities believable.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
from numpy.typing import NDArray

import metrics

COLDEST, HOTTEST = 0.05, 20.0
SPREAD = 0.35  # of log T around 0 beforehand: three in ten temperatures beyond 0.7 to 1.4


def fit_temperature(logits: NDArray, labels: NDArray) -> float:
    """The most probable temperature, from 0.05 to 20, given logits `(U, C)`, to be divided by it, and the labels `(U,)`
    of validation utterances: on those that are then reported it would flatter. The class predicted stays.

    It makes the labels likely and stays near 1 while they are few: thirty utterances, nearly all of them recognised, as
    a speaker's may be, would else ask for a temperature of 0.1, by which every error is made with certainty. With some
    hundred errors it is the likeliest one, as in the paper. Raises ValueError for no utterances.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise ValueError("no utterances to fit a temperature on")

    def surprise(log_t: float) -> float:
        return len(labels) * metrics.cross_entropy(logits, labels, float(np.exp(log_t))) + (log_t / SPREAD) ** 2 / 2

    grid = np.linspace(np.log(COLDEST), np.log(HOTTEST), 61)  # first by steps: of a network that has hardly learned the
    best = int(np.argmin([surprise(log_t) for log_t in grid]))  # logits are so small that there are two minima
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, 60)]
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
