"""The picture of a prediction: waveform and emotions over time."""

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

import cli
from figures import COLOURS, LINES, style
from files import atomic
from inference import Prediction


def plot(one: Prediction, output: Path, title: str = "") -> None:
    """Draw the waveform of a recording and the probability of each class over time, to a .png, .pdf or .svg file.

    A segment's probabilities stand at its middle. The strip between says which class is likeliest.
    """
    with style({}):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        wave, strip, course = figure.subplots(3, 1, sharex=True, height_ratios=[4, 0.7, 8])
        at = one.outline.edges()
        wave.fill_between(at, one.outline.bins[:, 0], one.outline.bins[:, 1], color="#555555", linewidth=0.4)
        loudest = max(1e-3, one.outline.loudest())
        wave.set_ylim(-1.05 * loudest, 1.05 * loudest)
        wave.set_yticks([])
        wave.set_ylabel("wave", rotation=0, ha="right", va="center")
        name = cli.printable(one.file)
        name = name if len(name) <= 70 else "…" + name[-69:]
        found = f"{one.label} ({one.probabilities.max():.0%})" if one.heard.any() else "silent"
        title_of_wave = f"{name}: {found}"
        wave.set_title(title_of_wave, loc="left", fontsize=11, parse_math=False)  # a $ is a $
        few = condensed(one)
        _strip(strip, few)
        _course(course, few)
        if one.seconds > 120:
            apart = next((s for s in (30, 60, 120, 300, 600, 900, 1800) if s >= one.seconds / 10), 3600)
            course.xaxis.set_major_locator(MultipleLocator(apart))
            course.xaxis.set_major_formatter(lambda at, _: f"{round(at) // 60}:{round(at) % 60:02d}")
        points = f"; each point a segment of {one.ends[0] - one.starts[0]:.1f} s, at its middle"
        points = points if few is one else f"; means over {few.starts[1] - few.starts[0]:.1f} s"
        points = points if one.ends[0] < one.seconds else ""  # one segment is a line; a short one was repeated
        course.set_xlabel(f"{'minutes' if one.seconds > 120 else 'seconds'}{points}")
        course.set_xlim(0, max(one.seconds, 1e-3))
        for axis in (wave, strip, course):
            axis.spines[["top", "right"]].set_visible(False)
        notes = "; ".join(text for text in (title, one.note) if text)
        figure.supxlabel(textwrap.fill(notes, 150), x=0.01, ha="left", fontsize=8, color="#444444", parse_math=False)
        with atomic(output) as temporary:
            figure.savefig(temporary, format=output.suffix.lstrip(".").lower(), dpi=150, facecolor="white")


def condensed(one: Prediction, most: int = 300) -> Prediction:
    """A prediction whose timeline is of at most `most` means over neighbouring segments that hold sound: a picture has
    no room for more."""
    width = -(-len(one.starts) // most)
    if width == 1:
        return one
    first = np.arange(0, len(one.starts), width)
    last = np.minimum(first + width, len(one.starts)) - 1
    sound = np.add.reduceat(one.heard.astype(int), first)
    silent = np.repeat(sound == 0, np.diff([*first, len(one.heard)]))  # all of its neighbours, too
    counted = (one.heard | silent)[:, None]
    timeline = np.add.reduceat(one.timeline * counted, first) / np.add.reduceat(counted.astype(int), first)
    return replace(one, starts=one.starts[first], ends=one.ends[last], timeline=timeline, heard=sound > 0)


def _strip(axis: Axes, one: Prediction) -> None:
    """Which class is likeliest around the middle of each segment, in its colour."""
    middles, best = (one.starts + one.ends) / 2, np.where(one.heard, one.timeline.argmax(1), -1)
    edges = np.concatenate(([0.0], (middles[1:] + middles[:-1]) / 2, [one.seconds]))
    first = np.flatnonzero(np.concatenate(([True], np.diff(best) != 0)))
    for start, stop in zip(first, [*first[1:], len(best)], strict=True):
        c, left, right = int(best[start]), edges[start], edges[stop]
        if c < 0:  # silence
            continue
        axis.axvspan(left, right, color=COLOURS[c % len(COLOURS)], linewidth=0)
        if right - left > 0.011 * len(one.classes[c]) * one.seconds:
            ink = "white" if c % len(COLOURS) in (0, 2, 6) else "black"
            axis.text((left + right) / 2, 0.5, one.classes[c], color=ink, fontsize=8, ha="center", va="center",
                      transform=axis.get_xaxis_transform(), clip_on=True, parse_math=False)  # fmt: skip
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def _course(axis: Axes, one: Prediction) -> None:
    """Probabilities of the classes over time, and at the right those of the whole recording."""
    at = (one.starts + one.ends) / 2
    heard = np.where(one.heard[:, None], one.timeline, np.nan)  # a gap in silence
    if len(at) == 1:
        at, heard = np.array([0.0, one.seconds]), np.repeat(heard, 2, axis=0)
    there = np.pad(~np.isnan(heard[:, 0]), 1)
    alone = np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])  # between silent ones, where a line needs two
    for c, name in enumerate(one.classes):
        style: dict[str, Any] = {
            "color": COLOURS[c % len(COLOURS)],
            "linestyle": LINES[(c + c // len(COLOURS)) % len(LINES)],
        }
        label = f"{name} {one.probabilities[c]:.0%}"
        axis.plot(at, heard[:, c], linewidth=1.6 if len(at) < 1000 else 0.8, label=label, **style)
        axis.plot(at[alone], heard[alone, c], ".", color=style["color"])
    legend = axis.legend(
        loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handlelength=3.2, title="whole recording"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability")
    axis.grid(True, color="#dddddd", linewidth=0.6)
