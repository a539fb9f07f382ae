"""A temperature that makes probabilities believable.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
from numpy.typing import NDArray

import metrics

COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: NDArray, labels: NDArray) -> float | None:
    """The temperature, from 0.05 to 20, that makes the labels `(U,)` likeliest given logits `(U, C)` divided by it.

    To be fitted on validation utterances: on those that are then reported it would flatter. The class predicted stays.
    None where the likeliest is not between these bounds. If all utterances are recognised, it falls to 0: the
    surer the likelier, which tells of a small sample and not of how sure to be of other recordings.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise ValueError("no utterances to fit a temperature on")
    bounds = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
    fit = minimize_scalar(
        lambda log_t: metrics.cross_entropy(logits, labels, float(np.exp(log_t))), bounds=bounds, method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    found = float(np.exp(fit.x))
    all_right = bool((logits.argmax(1) == labels).all())
    return None if all_right or not 1.01 * COLDEST < found < HOTTEST / 1.01 else found
