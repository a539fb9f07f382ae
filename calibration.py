"""A temperature that calibrates probabilities, so that a confidence of 80 % means 80 % of the answers are right.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
from numpy.typing import NDArray

import metrics

COLDEST, HOTTEST = 0.05, 20.0
SPREAD = 0.35  # prior standard deviation of log T: without data, seven in ten temperatures are from 0.7 to 1.4


def fit_temperature(logits: NDArray, labels: NDArray) -> float:
    """Return the temperature, from 0.05 to 20, to divide logits by; it is fitted to `(U, C)` logits and `(U,)` labels.

    These are of validation utterances: fitted on the reported ones, it would flatter. The predicted classes stay the
    same. The temperature is the most probable one under a prior that keeps it near 1 while utterances are few. Thirty
    utterances, nearly all recognised, would otherwise give a temperature of 0.1, with which every error is made with
    certainty. With some hundred errors it is the likeliest one, as in the paper. Raises ValueError for no utterances.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise ValueError("no utterances to fit a temperature on")

    def surprise(log_t: float) -> float:
        return len(labels) * metrics.cross_entropy(logits, labels, float(np.exp(log_t))) + (log_t / SPREAD) ** 2 / 2

    # a grid first, as there can be two minima where a network has hardly learned and its logits are small
    grid = np.linspace(np.log(COLDEST), np.log(HOTTEST), 61)
    best = int(np.argmin([surprise(log_t) for log_t in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, 60)]
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
