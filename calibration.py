"""Whether probabilities can be believed: a temperature for them, and the figure that shows it.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import metrics
from files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLDEST, HOTTEST = 0.05, 20.0
Scored = tuple[NDArray, NDArray]  # logits (U, C) and labels (U,) of one run's utterances


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


def say_error(runs: Sequence[Scored], temperatures: Sequence[float] | None = None) -> str:
    """The expected calibration error of some runs: its mean and, of several, the sample standard deviation."""
    errors = [metrics.ece(*run, temperature=t) for run, t in zip(runs, temperatures or [1.0] * len(runs), strict=True)]
    spread = f" ± {np.std(errors, ddof=1):.1f}" if len(errors) > 1 else ""
    return f"ECE {np.mean(errors):.1f}{spread} %"


def reliability_panel(
    axis: "Axes", runs: Sequence[Scored], temperatures: Sequence[float] | None = None, bins: int = 15
) -> None:
    """Accuracy against confidence of the utterances of all `runs`, bin by bin, and in grey how many each bin holds.

    `temperatures`: one a run, fitted on its validation utterances; drawn as a second line.
    """
    labels = np.concatenate([run[1] for run in runs])
    shown: list[tuple[str, list[float], dict[str, Any]]] = [
        ("as trained", [1.0] * len(runs), {"color": "#0072B2", "marker": "o", "linestyle": "-"})
    ]
    if temperatures is not None:
        shown.append(("with temperature", list(temperatures), {"color": "#D55E00", "marker": "s", "linestyle": "--"}))
    axis.plot([0, 1], [0, 1], color="#777777", linewidth=0.8, linestyle=":", label="perfect")
    for number, (name, ts, style) in enumerate(shown):
        probabilities = np.concatenate([metrics.softmax(run[0], t) for run, t in zip(runs, ts, strict=True)])
        counts, confidence, accuracy = metrics.confidence_bins(probabilities, labels, bins)
        if number == 0:
            middle, share = (np.arange(bins) + 0.5) / bins, counts / counts.sum()
            axis.bar(middle, share, width=0.9 / bins, color="#dddddd", label="share of utterances", zorder=0)
        full = counts > 0
        style |= {"label": f"{name}: {say_error(runs, ts)}", "linewidth": 1.4, "markersize": 4.5}
        axis.plot(confidence[full], accuracy[full], clip_on=False, **style)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    axis.set_xlabel("confidence")
    axis.set_ylabel("accuracy")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=7.5, frameon=False)


def reliability(
    panels: Sequence[tuple[str, Sequence[Scored], Sequence[float] | None]], output: Path | None = None, title: str = ""
) -> "Figure":
    """The reliability diagram of some models, side by side, written to `output` (.png, .pdf, .svg) if there is one.

    Each panel is a title, the logits and labels of each run's test utterances, and each run's temperature or None.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.7 * len(panels) + 0.3, 4.1), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    for axis, (name, runs, temperatures) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        reliability_panel(axis, runs, temperatures)
        axis.set_title(name, loc="left")
    if output is not None:
        with atomic(output) as temporary:
            figure.savefig(temporary, format=output.suffix.lstrip(".").lower() or "png", dpi=200, facecolor="white")
    return figure
