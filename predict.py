"""Recognise the emotion of recordings: the class and the probabilities of each, also over time.

    python predict.py recording.wav --checkpoint runs/impro/8-2/GLAM/0123456789ab/987654
    python predict.py FOLDER --checkpoint CHECKPOINT --csv > predictions.csv
    python predict.py call.flac --checkpoint CHECKPOINT --timeline --plot call.png
    arecord -d 5 -f S16_LE -r 16000 | python predict.py - --checkpoint CHECKPOINT

Recordings may have any rate, any length, and any format that libsndfile reads. Channels are averaged: split a call with
one party in each channel into two files first. A recording is cut into segments as in scoring, but silent segments are
left out, unless all are silent. A recording shorter than a segment is repeated until it fills one, with a note. Broken
recordings are reported and left out; the exit status is then 1.

The logits of a recording are the mean of its segments' logits. Its probabilities are the softmax of these logits,
divided by the checkpoint's temperature if there is one. With --no-calibrate the logits are not divided; if no segment
is silent, they are those of a run's predictions.npz.

`python train.py --save_model` makes a checkpoint.
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import cli
from cli import UserError
from corpora import is_csv
from files import walk

if TYPE_CHECKING:
    from checkpoints import Checkpoint
    from inference import Prediction

SUFFIXES = (  # files that libsndfile decodes
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp1", ".mp2", ".mp3", ".nist", ".oga", ".ogg", ".opus", ".rf64",
    ".snd", ".sph", ".voc", ".w64", ".wav", ".wave", ".wve",
)  # fmt: skip
OTHERS = (  # files with sound that libsndfile does not decode
    ".3gp", ".aac", ".ac3", ".amr", ".ape", ".avi", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".mpg", ".ra",
    ".webm", ".wma", ".wmv",
)  # fmt: skip
PICTURES = (".png", ".pdf", ".svg")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="FILE|FOLDER|-",
        help="recordings, or folders, of which all recordings are taken, sorted by name; - reads a recording from "
        "standard input",
    )
    cli.add_checkpoint(parser)
    add(
        "--timeline",
        action="store_true",
        help="also print the probabilities of each segment, with its start and end in seconds",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    form.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    add(
        "--plot",
        type=Path,
        metavar="PATH",
        help="draw the waveform and the emotions over time into a .png, .pdf or .svg file; for several recordings, "
        "name a folder",
    )
    add(
        "--calibrate",
        action=argparse.BooleanOptionalAction,
        help="divide logits by the checkpoint's temperature (default: if the checkpoint has one)",
    )
    cli.add_machine(parser)
    return parser


# ---------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class Input:
    """One recording that is to be predicted."""

    path: Path
    name: str  # what it is called in the output
    relative: Path  # its path below the folder that was given


def _in_folder(folder: Path) -> Iterator[Input]:
    """Yield the recordings in a folder and below it, linked ones too; warn of files with sound that cannot be read."""
    others = []
    for parent, files in walk(folder):
        for name in files:
            file = parent / name
            if file.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Input(file, str(file), file.relative_to(folder))
            elif file.suffix.lower() in OTHERS:
                others.append(file)
    if others:
        kinds = ", ".join(sorted({file.suffix.lower() for file in others}))
        cli.warn(
            f"{cli.printable(str(folder))}: {len(others)} file{'s are' if len(others) > 1 else ' is'} left "
            f"out, as {kinds} cannot be read; `ffmpeg -i FILE FILE.wav` converts one"
        )


def _standard_input(folder: Path) -> Input:
    """Return standard input as a recording, copied to a file in `folder`, as decoders have to seek."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("- reads a recording from standard input: redirect or pipe one into it")
    file = folder / "stdin"
    with open(file, "wb") as f:
        while block := sys.stdin.buffer.read(2**20):
            f.write(block)
    return Input(file, "-", Path("stdin"))


def find_inputs(words: list[str], scratch: Path) -> list[Input]:
    """Return the recordings that the command line names. Raises UserError for a folder without any, and for a CSV."""
    found: list[Input] = []
    for word in words:
        if word == "-":
            if any(source.name == "-" for source in found):
                raise UserError("- is given twice, but there is one standard input")
            found.append(_standard_input(scratch))
        elif Path(word).is_dir():
            inside = list(_in_folder(Path(word)))
            if not inside:
                raise UserError(f"{word} holds no recording (files called {' '.join(SUFFIXES)})")
            found += inside
        elif is_csv(word):
            raise UserError(f"{word} is no recording; python evaluate.py {word} predicts and scores those it lists")
        else:
            found.append(Input(Path(word), word, Path(Path(word).name)))
    return found


# ---------------------------------------------------------------------------------------------------- output


class Table:
    """Prints a table for readers, a row at a time."""

    def __init__(self, names: list[str], classes: list[str], timeline: bool):
        self.classes, self.timeline = classes, timeline
        self.width = max(len("recording"), *(len(cli.printable(name)) for name in names))
        self.widths = [max(6, len(c)) for c in classes]
        self.label = max(5, *(len(c) for c in classes))
        titles = "  ".join(f"{c:>{w}}" for c, w in zip(classes, self.widths, strict=True))
        print(f"{'recording':<{self.width}}  {'seconds':>17}  {'class':<{self.label}}  {titles}", flush=True)

    def _row(self, name: str, when: str, p: Any, note: str = "") -> None:
        numbers = "  ".join(f"{x:>{w}.3f}" for x, w in zip(p, self.widths, strict=True))
        name = cli.printable(name)
        text = f"{name:<{self.width}}  {when:>17}  {self.classes[int(p.argmax())]:<{self.label}}  {numbers}  {note}"
        print(text.rstrip(), flush=True)

    def add(self, prediction: "Prediction") -> None:
        self._row(prediction.file, f"{prediction.seconds:.2f}", prediction.probabilities, prediction.note)
        if self.timeline:
            for start, end, p, heard in prediction.segments():
                self._row("", f"{start:.2f} - {end:.2f}", p, "" if heard else "silent")


class Csv:
    """Prints CSV: a row for each utterance and, with the timeline, a row for each of its segments after it."""

    def __init__(self, classes: list[str], timeline: bool):
        self.timeline, self.writer = timeline, csv.writer(sys.stdout, lineterminator="\n")
        self.writer.writerow(["file", "part", "start", "end", "class", *(f"p_{c}" for c in classes), "note"])

    def add(self, prediction: "Prediction") -> None:
        rows = [("utterance", 0.0, prediction.seconds, prediction.probabilities, prediction.note)]
        if self.timeline:
            rows += [
                ("segment", start, end, p, "" if heard else "silent") for start, end, p, heard in prediction.segments()
            ]
        for part, start, end, p, note in rows:
            numbers = [f"{x:.9g}" for x in p]
            label = prediction.classes[int(p.argmax())]
            self.writer.writerow([prediction.file, part, f"{start:.4f}", f"{end:.4f}", label, *numbers, note])
        sys.stdout.flush()


class Json:
    """Collects the predictions, and prints them at the end as one JSON object."""

    def __init__(self, head: dict[str, Any], timeline: bool):
        self.head, self.timeline = head, timeline
        self.utterances: list[dict[str, Any]] = []

    def add(self, prediction: "Prediction") -> None:
        self.utterances.append(prediction.as_dict(self.timeline))

    def finish(self, broken: list[dict[str, str]]) -> None:
        print(json.dumps({**self.head, "utterances": self.utterances, "broken": broken}, indent=2))


def make_output(
    args: argparse.Namespace, checkpoint: "Checkpoint", inputs: list[Input], calibrated: bool
) -> Table | Csv | Json:
    """Return the output in the format that the flags ask for."""
    if args.json:
        head = {
            "checkpoint": str(args.checkpoint), "model": checkpoint.config["model"], "calibrated": calibrated,
            "temperature": checkpoint.temperature, "synthetic": checkpoint.config["synthetic"],
            "classes": checkpoint.classes,
        }  # fmt: skip
        return Json(head, args.timeline)
    if args.csv:
        return Csv(checkpoint.classes, args.timeline)
    return Table([source.name for source in inputs], checkpoint.classes, args.timeline)


def plot_files(target: Path, inputs: list[Input], words: list[str]) -> list[Path]:
    """Return the file of each recording's picture. Raises UserError if several recordings would go into one file."""
    if target.suffix.lower() in PICTURES and not target.is_dir():
        if len(inputs) > 1 or Path(words[0]).is_dir():
            raise UserError(f"--plot {target} is one picture; for a folder or several recordings, name a folder")
        return [target]
    if not target.is_dir() and (target.exists() or target.suffix):
        raise UserError(f"--plot {target}: name a file that ends in {', '.join(PICTURES)}, or a folder")
    files = [target / source.relative.with_name(source.relative.name + ".png") for source in inputs]
    counts = Counter(files)
    if twice := next((source for source, file in zip(inputs, files, strict=True) if counts[file] > 1), None):
        raise UserError(f"--plot {target}: two recordings are called {twice.relative}; do them one by one")
    return files


# ---------------------------------------------------------------------------------------------------- the run


def say_calibration(temperature: float | None, applied: bool, note: str) -> str:
    """Return a clause that says whether probabilities are calibrated."""
    if temperature is None:
        return f"probabilities are not calibrated ({note})"
    return f"probabilities are {'' if applied else 'not '}calibrated (temperature {temperature:g}, {note})"


def main() -> int:
    """Run `python predict.py` and return the exit status."""
    args = command_line().parse_args()
    piped = "-" in args.inputs
    with tempfile.TemporaryDirectory(prefix="predict-") if piped else nullcontext("") as scratch:
        inputs = find_inputs(args.inputs, Path(scratch))
        pictures = plot_files(args.plot, inputs, args.inputs) if args.plot else None
        from device import explaining_out_of_memory

        with explaining_out_of_memory("--gpu -1 computes on the CPU"):
            return run(args, inputs, pictures)


def _draw(prediction: "Prediction", picture: Path, title: str) -> bool:
    """Draw a prediction and print the picture's name. If it cannot be written, report that and return False."""
    from timeline import plot  # imports matplotlib, which takes a second

    try:
        plot(prediction, picture, title)
    except OSError as error:
        print(f"error: {cli.printable(cli.refusal(error) or str(error))}", file=sys.stderr, flush=True)
        return False
    print(cli.printable(str(picture)), file=sys.stderr, flush=True)
    return True


def run(args: argparse.Namespace, inputs: list[Input], pictures: list[Path] | None) -> int:
    """Predict, print and draw, and return the exit status."""
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
    if sys.stdout.encoding.lower() == "utf-8":
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names of files may be any bytes
    print(told, file=sys.stderr, flush=True)
    out = make_output(args, checkpoint, inputs, calibrated)
    broken, undrawn = [], False
    try:
        for i, result in enumerate(recognise.each([(source.path, source.name) for source in inputs], args.jobs)):
            with tqdm.external_write_mode():  # without it, rows would be printed onto the progress bar
                if isinstance(result, str):
                    print(f"error: {cli.printable(result)}", file=sys.stderr, flush=True)
                    broken.append({"file": inputs[i].name, "fault": result})
                    continue
                out.add(result)
                if pictures and not _draw(result, pictures[i], told):
                    undrawn = True
    finally:  # after Ctrl-C, JSON has what was predicted until then
        if isinstance(out, Json):
            out.finish(broken)
    return 1 if broken or undrawn else 0


if __name__ == "__main__":
    cli.run_main(main, "interrupted: what is printed stands; the recordings after it were not done")
