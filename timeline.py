"""Draw a prediction: the waveform, and the emotions over time."""

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

import cli
from figures import COLOURS, LINES, style
from files import atomic
from inference import Prediction


def plot(prediction: Prediction, output: Path, title: str = "") -> None:
    """Draw the waveform of a recording and the probability of each class over time, to a .png, .pdf or .svg file.

    A segment's probabilities are drawn at its middle. The strip between the two shows which class is likeliest.
    """
    with style({}):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        wave, strip, course = figure.subplots(3, 1, sharex=True, height_ratios=[4, 0.7, 8])
        few = condensed(prediction)
        _wave(wave, prediction)
        _strip(strip, few)
        _course(course, few)
        _time_axis(course, prediction.seconds, _say_points(prediction, few))
        for axis in (wave, strip, course):
            axis.spines[["top", "right"]].set_visible(False)
        notes = "; ".join(text for text in (title, prediction.note) if text)
        figure.supxlabel(textwrap.fill(notes, 150), x=0.01, ha="left", fontsize=8, color="#444444")
        with atomic(output) as temporary:
            figure.savefig(temporary, format=output.suffix.lstrip(".").lower(), dpi=150, facecolor="white")


def condensed(prediction: Prediction, most: int = 300) -> Prediction:
    """Return a prediction whose timeline has at most `most` points, as a picture has no room for more. Each point is
    the mean over neighbouring segments that hold sound."""
    width = -(-len(prediction.starts) // most)
    if width == 1:
        return prediction
    first = np.arange(0, len(prediction.starts), width)
    last = np.minimum(first + width, len(prediction.starts)) - 1
    sound = np.add.reduceat(prediction.heard.astype(int), first)
    silent = np.repeat(sound == 0, np.diff([*first, len(prediction.heard)]))  # segments of points without any sound
    counted = (prediction.heard | silent)[:, None]
    timeline = np.add.reduceat(prediction.timeline * counted, first) / np.add.reduceat(counted.astype(int), first)
    return replace(
        prediction, starts=prediction.starts[first], ends=prediction.ends[last], timeline=timeline, heard=sound > 0
    )


def _wave(axis: Axes, prediction: Prediction) -> None:
    """Draw the outline of the waveform; the title is the recording's name and its predicted class."""
    outline = prediction.outline
    axis.fill_between(outline.edges(), outline.bins[:, 0], outline.bins[:, 1], color="#555555", linewidth=0.4)
    loudest = max(1e-3, outline.loudest())
    axis.set_ylim(-1.05 * loudest, 1.05 * loudest)
    axis.set_yticks([])
    axis.set_ylabel("wave", rotation=0, ha="right", va="center")
    name = cli.printable(prediction.file)
    name = name if len(name) <= 70 else "…" + name[-69:]
    found = f"{prediction.label} ({prediction.probabilities.max():.0%})" if prediction.heard.any() else "silent"
    axis.set_title(f"{name}: {found}", loc="left", fontsize=11)


def _say_points(prediction: Prediction, few: Prediction) -> str:
    """Return what a point of the curves is; an empty text for a single segment, which is drawn as a straight line."""
    if len(prediction.starts) == 1:
        return ""
    if few is not prediction:
        return f"; means over {few.starts[1] - few.starts[0]:.1f} s"
    return f"; each point a segment of {prediction.ends[0] - prediction.starts[0]:.1f} s, at its middle"


def _time_axis(axis: Axes, seconds: float, points: str) -> None:
    """Label the time axis in seconds or, for recordings of over two minutes, in minutes; `points` ends the label."""
    if seconds > 120:
        apart = next((s for s in (30, 60, 120, 300, 600, 900, 1800) if s >= seconds / 10), 3600)
        axis.xaxis.set_major_locator(MultipleLocator(apart))
        axis.xaxis.set_major_formatter(lambda at, _: f"{round(at) // 60}:{round(at) % 60:02d}")
    axis.set_xlabel(f"{'minutes' if seconds > 120 else 'seconds'}{points}")
    axis.set_xlim(0, max(seconds, 1e-3))


def _strip(axis: Axes, prediction: Prediction) -> None:
    """Draw a strip in the colours of the classes that are likeliest around the middle of each segment."""
    middles = (prediction.starts + prediction.ends) / 2
    best = np.where(prediction.heard, prediction.timeline.argmax(1), -1)
    edges = np.concatenate(([0.0], (middles[1:] + middles[:-1]) / 2, [prediction.seconds]))
    first = np.flatnonzero(np.concatenate(([True], np.diff(best) != 0)))
    for start, stop in zip(first, [*first[1:], len(best)], strict=True):
        c, left, right = int(best[start]), edges[start], edges[stop]
        if c < 0:  # silence has no colour
            continue
        axis.axvspan(left, right, color=COLOURS[c % len(COLOURS)], linewidth=0)
        if right - left > 0.011 * len(prediction.classes[c]) * prediction.seconds:
            ink = "white" if c % len(COLOURS) in (0, 2, 6) else "black"
            axis.text((left + right) / 2, 0.5, prediction.classes[c], color=ink, fontsize=8, ha="center", va="center",
                      transform=axis.get_xaxis_transform(), clip_on=True)  # fmt: skip
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def _course(axis: Axes, prediction: Prediction) -> None:
    """Draw the probabilities of the classes over time; the legend has those of the whole recording."""
    at = (prediction.starts + prediction.ends) / 2
    heard = np.where(prediction.heard[:, None], prediction.timeline, np.nan)  # silence is a gap
    if len(at) == 1:
        at, heard = np.array([0.0, prediction.seconds]), np.repeat(heard, 2, axis=0)
    there = np.pad(~np.isnan(heard[:, 0]), 1)
    alone = np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])  # points between gaps, through which no line goes
    for c, name in enumerate(prediction.classes):
        colour, dashes = COLOURS[c % len(COLOURS)], LINES[(c + c // len(COLOURS)) % len(LINES)]
        label = f"{name} {prediction.probabilities[c]:.0%}"
        width = 1.6 if len(at) < 1000 else 0.8
        axis.plot(at, heard[:, c], color=colour, linestyle=dashes, linewidth=width, label=label)
        axis.plot(at[alone], heard[alone, c], ".", color=colour)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handlelength=3.2, title="whole recording")
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability")
    axis.grid(True, color="#dddddd", linewidth=0.6)
