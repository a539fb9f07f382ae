"""Emotions in recordings: class and probabilities of each, and of each moment.

    python predict.py recording.wav --checkpoint runs/impro/8-2/GLAM/0123456789ab/987654
    python predict.py FOLDER --checkpoint CHECKPOINT --csv > predictions.csv
    python predict.py call.flac --checkpoint CHECKPOINT --timeline --plot call.png
    arecord -d 5 -f S16_LE -r 16000 | python predict.py - --checkpoint CHECKPOINT

Any rate, length and format that libsndfile reads. Channels are averaged: split a call with one party in each into two
files first. A recording is cut into segments as in scoring, but silent ones are left out, unless all are. Its
probabilities are the softmax of the mean of its segments' logits, divided by the checkpoint's temperature if it has one
(--no-calibrate: as they are, like those in predictions.npz of a recording without silence). A recording shorter than a
segment is repeated until one is full, with a note. Broken ones are reported and left out; the exit status is then 1.

`python train.py --save_model` makes a checkpoint.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import cli
from cli import UserError
from files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from inference import Prediction

SUFFIXES = (  # of what libsndfile decodes
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp1", ".mp2", ".mp3", ".nist", ".oga", ".ogg", ".opus", ".rf64",
    ".snd", ".sph", ".voc", ".w64", ".wav", ".wave", ".wve",
)  # fmt: skip
OTHERS = (  # of sound that it does not
    ".3gp", ".aac", ".ac3", ".amr", ".ape", ".avi", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".mpg", ".ra",
    ".webm", ".wma", ".wmv",
)  # fmt: skip
PICTURES = (".png", ".pdf", ".svg")


def command_line() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = cli.parser(description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="FILE|FOLDER|-",
        help="recordings; of a folder all in it, sorted by name; - reads one from standard input",
    )
    cli.add_checkpoint(parser)
    add("--timeline", action="store_true", help="also the probabilities of each segment, from start to end in seconds")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    form.add_argument("--csv", action="store_true", help="CSV instead of a table")
    add(
        "--plot",
        type=Path,
        metavar="PATH",
        help="draw waveform and emotions over time: a .png, .pdf or .svg file, or a folder for several recordings",
    )
    add(
        "--calibrate",
        action=argparse.BooleanOptionalAction,
        help="divide logits by the checkpoint's temperature (default: if it has one)",
    )
    cli.add_machine(parser)
    return parser


# ---------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class Input:
    """One recording: where it is, what it is called, and its name below the folder it was found in."""

    path: Path
    name: str
    relative: Path


def _in_folder(folder: Path) -> Iterator[Input]:
    """The recordings in a folder and those below it, linked ones too; says which sound it leaves out."""
    been, others = {os.path.realpath(folder)}, []
    for parent, folders, files in os.walk(folder, followlinks=True):
        inside = sorted((f for f in folders if not f.startswith(".")), key=lambda f: (Path(parent, f).is_symlink(), f))
        folders.clear()
        for name in inside:  # links last: one may lead back, or to a folder beside it
            if (real := os.path.realpath(Path(parent, name))) not in been:
                been.add(real)
                folders.append(name)
        for name in sorted(files):
            file = Path(parent, name)
            if file.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Input(file, str(file), file.relative_to(folder))
            elif file.suffix.lower() in OTHERS:
                others.append(file)
    if others:
        kinds = ", ".join(sorted({file.suffix.lower() for file in others}))
        cli.warn(f"{cli.printable(str(folder))}: {len(others)} file{'s are' if len(others) > 1 else ' is'} left "
                 f"out, as {kinds} cannot be read; `ffmpeg -i FILE FILE.wav` converts one")  # fmt: skip


def _standard_input(folder: Path) -> Input:
    """What standard input holds, in a file: decoders seek."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("- reads a recording from standard input: redirect or pipe one into it")
    file = folder / "stdin"
    with open(file, "wb") as f:
        while block := sys.stdin.buffer.read(2**20):
            f.write(block)
    return Input(file, "-", Path("stdin"))


def find_inputs(words: list[str], scratch: Path) -> list[Input]:
    """The recordings that the command line names. Raises UserError for a folder without any."""
    found: list[Input] = []
    for word in words:
        if word == "-":
            if any(one.name == "-" for one in found):
                raise UserError("- is given twice, but there is one standard input")
            found.append(_standard_input(scratch))
        elif Path(word).is_dir():
            inside = list(_in_folder(Path(word)))
            if not inside:
                raise UserError(f"{word} holds no recording (files called {' '.join(SUFFIXES)})")
            found += inside
        else:
            found.append(Input(Path(word), word, Path(Path(word).name)))
    return found


# ---------------------------------------------------------------------------------------------------- output


class Table:
    """A table for reading, a row at a time."""

    def __init__(self, names: list[str], classes: list[str], timeline: bool):
        self.timeline, self.width = timeline, max(len("recording"), *(len(name) for name in names)) if names else 9
        self.widths = [max(6, len(c)) for c in classes]
        self.label = max(5, *(len(c) for c in classes))
        titles = "  ".join(f"{c:>{w}}" for c, w in zip(classes, self.widths, strict=True))
        print(f"{'recording':<{self.width}}  {'seconds':>17}  {'class':<{self.label}}  {titles}", flush=True)

    def _row(self, name: str, when: str, classes: list[str], p: Any, note: str = "") -> None:
        numbers = "  ".join(f"{x:>{w}.3f}" for x, w in zip(p, self.widths, strict=True))
        name = cli.printable(name)
        text = f"{name:<{self.width}}  {when:>17}  {classes[int(p.argmax())]:<{self.label}}  {numbers}  {note}"
        print(text.rstrip(), flush=True)

    def add(self, one: "Prediction") -> None:
        self._row(one.file, f"{one.seconds:.2f}", one.classes, one.probabilities, one.note)
        if self.timeline:
            for start, end, p, heard in zip(one.starts, one.ends, one.timeline, one.heard, strict=True):
                self._row("", f"{start:.2f} - {end:.2f}", one.classes, p, "" if heard else "silent")

    def finish(self, broken: list[dict[str, str]]) -> None:
        pass


class Csv:
    """A row an utterance; with the timeline, after it a row a segment."""

    def __init__(self, classes: list[str], timeline: bool):
        self.timeline, self.writer = timeline, csv.writer(sys.stdout, lineterminator="\n")
        self.writer.writerow(["file", "part", "start", "end", "class", *(f"p_{c}" for c in classes), "note"])

    def add(self, one: "Prediction") -> None:
        rows = [("utterance", 0.0, one.seconds, one.probabilities, one.note)]
        if self.timeline:
            columns = zip(one.starts, one.ends, one.timeline, one.heard, strict=True)
            rows += [("segment", start, end, p, "" if heard else "silent") for start, end, p, heard in columns]
        for part, start, end, p, note in rows:
            numbers = [f"{x:.9g}" for x in p]
            label = one.classes[int(p.argmax())]
            self.writer.writerow([one.file, part, f"{start:.4f}", f"{end:.4f}", label, *numbers, note])
        sys.stdout.flush()

    def finish(self, broken: list[dict[str, str]]) -> None:
        pass


class Json:
    """One object, printed at the end."""

    def __init__(self, head: dict[str, Any], timeline: bool):
        self.head, self.timeline = head, timeline
        self.utterances: list[dict[str, Any]] = []

    def add(self, one: "Prediction") -> None:
        self.utterances.append(one.as_dict(self.timeline))

    def finish(self, broken: list[dict[str, str]]) -> None:
        print(json.dumps({**self.head, "utterances": self.utterances, "broken": broken}, indent=2))


def plot_files(target: Path, inputs: list[Input], words: list[str]) -> list[Path]:
    """Where each recording's picture goes. Raises UserError for one file for several recordings."""
    if target.suffix.lower() in PICTURES and not target.is_dir():
        if len(inputs) > 1 or Path(words[0]).is_dir():
            raise UserError(f"--plot {target} is one picture; for a folder or several recordings, name a folder")
        return [target]
    if not target.is_dir() and (target.exists() or target.suffix):
        raise UserError(f"--plot {target}: name a file that ends in {', '.join(PICTURES)}, or a folder")
    files = [target / one.relative.with_name(one.relative.name + ".png") for one in inputs]
    counts = Counter(files)
    if twice := next((one for one, file in zip(inputs, files, strict=True) if counts[file] > 1), None):
        raise UserError(f"--plot {target}: two recordings are called {twice.relative}; do them one by one")
    return files


def plot(one: "Prediction", output: Path, title: str = "") -> None:
    """Draw the waveform of a recording and the probability of each class over time, to a .png, .pdf or .svg file.

    A segment's probabilities stand at its middle. The strip between says which class is likeliest.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    from figures import style

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
            course.set_xlabel("minutes" if few is one else f"minutes; means over {few.starts[1] - few.starts[0]:.1f} s")
        course.set_xlim(0, max(one.seconds, 1e-3))
        for axis in (wave, strip, course):
            axis.spines[["top", "right"]].set_visible(False)
        notes = "; ".join(text for text in (title, one.note) if text)
        figure.supxlabel(textwrap.fill(notes, 150), x=0.01, ha="left", fontsize=8, color="#444444", parse_math=False)
        with atomic(output) as temporary:
            figure.savefig(temporary, format=output.suffix.lstrip(".").lower(), dpi=150, facecolor="white")


def condensed(one: "Prediction", most: int = 300) -> "Prediction":
    """A prediction whose timeline is of at most `most` means over neighbouring segments that hold sound: a picture has
    no room for more."""
    import numpy as np

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


def _strip(axis: "Axes", one: "Prediction") -> None:
    """Which class is likeliest around the middle of each segment, in its colour."""
    import numpy as np

    from figures import COLOURS

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


def _course(axis: "Axes", one: "Prediction") -> None:
    """Probabilities of the classes over time, and at the right those of the whole recording."""
    import numpy as np

    from figures import COLOURS, LINES  # line styles and names say the same again

    middles = (one.starts + one.ends) / 2
    at = np.array([0.0, one.seconds]) if len(middles) == 1 else middles
    heard = np.where(one.heard[:, None], one.timeline, np.nan)  # a gap in silence
    for c, name in enumerate(one.classes):
        values = heard[:, c] if len(middles) > 1 else np.repeat(heard[:, c], 2)
        style: dict[str, Any] = {
            "color": COLOURS[c % len(COLOURS)],
            "linestyle": LINES[(c + c // len(COLOURS)) % len(LINES)],
        }
        label = f"{name} {one.probabilities[c]:.0%}"
        axis.plot(at, values, linewidth=1.6 if len(at) < 1000 else 0.8, label=label, **style)
    legend = axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handlelength=3.2, title="in all")
    for text in legend.get_texts():
        text.set_parse_math(False)
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability")
    axis.set_xlabel("seconds")
    axis.grid(True, color="#dddddd", linewidth=0.6)


# ---------------------------------------------------------------------------------------------------- the run


def say_calibration(temperature: float | None, applied: bool, note: str) -> str:
    """Whether probabilities are calibrated, in words."""
    if temperature is None:
        return f"probabilities are not calibrated ({note})"
    return f"probabilities are {'' if applied else 'not '}calibrated (temperature {temperature:g}, {note})"


def main() -> int:
    """`python predict.py`"""
    args = command_line().parse_args()
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: must be at least 1")
    with tempfile.TemporaryDirectory(prefix="predict-") as scratch:
        inputs = find_inputs(args.inputs, Path(scratch))
        pictures = plot_files(args.plot, inputs, args.inputs) if args.plot else None
        from device import memory_told

        with memory_told("--gpu -1 computes on the CPU"):
            return run(args, inputs, pictures)


def run(args: argparse.Namespace, inputs: list[Input], pictures: list[Path] | None) -> int:
    """Predict, print and draw. Returns the exit status."""
    import checkpoints
    from device import choose_device
    from inference import Recogniser

    device = choose_device(args.gpu, args.device)
    checkpoint = checkpoints.load(args.checkpoint, args.online)
    temperature, why = checkpoint.temperature, checkpoint.config["temperature_note"]
    if args.calibrate and temperature is None:
        raise UserError(f"--calibrate: {args.checkpoint} has no temperature ({why}); leave the flag out")
    calibrated = temperature is not None and args.calibrate is not False
    recognise = Recogniser(checkpoint, device, calibrated)
    told = f"{checkpoint.title}; {say_calibration(temperature, calibrated, why)}"
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names of files are bytes
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print(told, file=sys.stderr, flush=True)
    out: Table | Csv | Json
    if args.json:
        out = Json({"checkpoint": str(args.checkpoint), "model": checkpoint.config["model"], "calibrated": calibrated,
                    "temperature": temperature, "synthetic": checkpoint.config["synthetic"],
                    "classes": checkpoint.classes}, args.timeline)  # fmt: skip
    elif args.csv:
        out = Csv(checkpoint.classes, args.timeline)
    else:
        out = Table([one.name for one in inputs], checkpoint.classes, args.timeline)
    broken, undrawn = [], 0
    try:
        for i, result in enumerate(recognise.each([(one.path, one.name) for one in inputs], args.jobs)):
            with tqdm.external_write_mode():  # else rows stand on the bar
                if isinstance(result, str):
                    print(f"error: {cli.printable(result)}", file=sys.stderr, flush=True)
                    broken.append({"file": inputs[i].name, "fault": result})
                    continue
                out.add(result)
                if pictures:
                    try:
                        plot(result, pictures[i], told)
                        print(cli.printable(str(pictures[i])), file=sys.stderr, flush=True)
                    except OSError as error:  # what was predicted stands
                        undrawn += 1
                        print(f"error: {cli.refusal(error) or error}", file=sys.stderr, flush=True)
    finally:  # also after Ctrl-C
        out.finish(broken)
    return 1 if broken or undrawn else 0


if __name__ == "__main__":
    cli.run_main(main, "interrupted: what is printed stands; the recordings after it were not done")
