"""Score a checkpoint on a labelled corpus: WA, UA, F1, the recall of each class, and the confusion matrix.

    python evaluate.py my_corpus.csv --checkpoint runs/emodb/8-2/GLAM
    python evaluate.py ravdess --checkpoint CHECKPOINT --csv predictions.csv

The corpus is one that train.py knows by name, or a CSV file with the columns path,emotion[,speaker,..]. Recordings are
predicted as by predict.py. The checkpoint may answer with a class that the corpus does not have; such an answer is
wrong. Three kinds of utterances are left out and counted: recordings that the checkpoint was trained on or that chose
its epoch or temperature, which are recognised by their bytes; utterances of classes that the checkpoint does not know;
and, as in training, utterances shorter than its segments (--padding keeps them). Broken recordings are reported and
left out; the exit status is then 1.

To train on one corpus and test on another, with any seed: python train.py --train A --test B.
"""

import argparse
import csv
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

import cli
import flags
import recipes
from cli import UserError
from files import atomic

if TYPE_CHECKING:
    from checkpoints import Checkpoint
    from corpora import Utterance
    from data import Corpus
    from inference import Prediction, Recogniser

Scored = list[tuple["Utterance", str, "Prediction"]]  # utterances, each with its class and its prediction


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    add = parser.add_argument
    add("corpus", metavar="NAME|FILE.csv", help="impro, script, all, demo, another corpus by name, or a CSV file")
    cli.add_checkpoint(parser)
    add(
        "--happy",
        choices=recipes.HAPPY,
        help="the labels of IEMOCAP that make up the class happy (default: as in training)",
    )
    add(
        "--padding",
        action="store_true",
        help="keep recordings shorter than a segment, and repeat them until they fill one",
    )
    add("--csv", type=Path, metavar="FILE", help="write the class and the probabilities of each utterance to this file")
    cli.add_machine(parser)
    return parser


@dataclass
class FairPart:
    """The utterances on which a checkpoint can fairly be scored, with their classes, and how many are left out."""

    utterances: list[tuple["Utterance", str]]
    heard: int  # how many recordings were used to train it, or to choose its epoch or temperature
    other_classes: Counter[str]  # class that the checkpoint does not have -> how many utterances
    unread: set[str]  # recordings that could not be read, so that it is not known whether it heard them


def fair_part(corpus: "Corpus", checkpoint: "Checkpoint", name: str) -> FairPart:
    """Return the part of a corpus that is fair to score. Raises UserError where it has fewer than two classes."""
    from cache import content_digests
    from data import HEARD

    was_heard, contents = checkpoint.heard, content_digests([u.path for u in corpus.utterances])
    part = FairPart([], 0, Counter(), set())
    for utterance, label, content in zip(corpus.utterances, corpus.labels, contents, strict=True):
        if not content:
            part.unread.add(utterance.path)
        if content[:HEARD] in was_heard:
            part.heard += 1
        elif corpus.classes[label] in checkpoint.classes:
            part.utterances.append((utterance, corpus.classes[label]))
        else:
            part.other_classes[corpus.classes[label]] += 1
    if len({label for _, label in part.utterances}) < 2:
        raise UserError(
            f"{name} and this checkpoint must share two classes: the checkpoint has {', '.join(checkpoint.classes)}, "
            f"the corpus {len(contents) - part.heard} recordings of {', '.join(corpus.classes)} that were not "
            "used to train or choose the checkpoint"
        )
    return part


def predict_all(recognise: "Recogniser", utterances: list[tuple["Utterance", str]], jobs: int | None) -> Scored:
    """Return every utterance with its class and its prediction, whose outline, needed only for pictures, is emptied.
    Broken recordings are reported and left out."""
    from inference import Outline

    found: Scored = []
    results = recognise.each([(u.path, u.path) for u, _ in utterances], jobs)
    for (utterance, label), result in zip(utterances, results, strict=True):
        if isinstance(result, str):
            with tqdm.external_write_mode():  # without it, the line would be printed onto the progress bar
                print(f"error: {cli.printable(result)}", file=sys.stderr, flush=True)
        else:
            found.append((utterance, label, replace(result, outline=Outline())))  # an outline takes 20 kB
    return found


def write_predictions(file: Path, scored: Scored, classes: list[str]) -> None:
    """Write a CSV row for each utterance: its name, speaker and class, the predicted class, and all probabilities."""
    with atomic(file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["name", "speaker", "class", "predicted", *(f"p_{name}" for name in classes)])
        for utterance, label, prediction in scored:
            numbers = [f"{p:.9g}" for p in prediction.probabilities]
            writer.writerow([utterance.name, utterance.speaker, label, prediction.label, *numbers])


def report(scored: Scored, recognise: "Recogniser") -> str:
    """Return the scores as text, with an interval over speakers where they are enough."""
    import numpy as np

    import metrics
    import stats

    classes = recognise.checkpoint.classes
    logits = np.array([prediction.logits for _, _, prediction in scored])
    labels = np.array([classes.index(label) for _, label, _ in scored])
    lines = [metrics.format_scores(metrics.scores(logits, labels), classes)]
    speakers = sorted({utterance.speaker for utterance, _, _ in scored})
    who = np.array([speakers.index(utterance.speaker) for utterance, _, _ in scored])
    counts = np.zeros((1, len(speakers), len(classes), len(classes)), dtype=np.int64)  # (1 model, P, C, C)
    np.add.at(counts[0], (who, labels, logits.argmax(1)), 1)
    if unknown := sum(not utterance.speaker for utterance, _, _ in scored):
        lines.append(
            f"no intervals: {unknown} of {len(scored)} utterances have no speaker (a CSV file's column speaker)"
        )
    elif len(speakers) < stats.FEWEST:
        lines.append(f"{len(speakers)} speaker{'s' * (len(speakers) != 1)}: too few for an interval over speakers")
    elif interval := stats.interval(counts):
        bounds = zip(metrics.SCORE_NAMES.values(), interval.low, interval.high, strict=True)
        told = "   ".join(f"{name} [{low:.2f}, {high:.2f}]" for name, low, high in bounds)
        lines.append(f"{told}   (95 % intervals over {len(speakers)} speakers)")
    else:
        lines.append("no intervals: a class has so few speakers that most draws of speakers lack it")
    error = metrics.ece(logits, labels, temperature=recognise.temperature)
    without = f", {metrics.ece(logits, labels):.1f} % without the temperature" if recognise.temperature != 1 else ""
    lines.append(f"expected calibration error of the probabilities: {error:.1f} %{without}")
    return "\n".join(lines)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do not fit the corpus, or that would overwrite its file."""
    if args.happy:
        flags.check_happy(args.corpus)
    if args.csv and args.csv.is_dir():
        raise UserError(f"--csv {args.csv} is a folder; name a file")
    if args.csv and args.csv.exists() and Path(args.corpus).exists() and args.csv.samefile(args.corpus):
        raise UserError(f"--csv {args.csv} is the corpus itself, which would be written over; name another file")


def say_scored(checkpoint: "Checkpoint", corpus: "Corpus", fair: FairPart, scored: Scored, broken: int) -> str:
    """Return lines that say how many utterances are scored and left out, and what qualifies the scores."""
    synthetic = " (SYNTHETIC speech)" if corpus.synthetic else ""
    others = f"{fair.other_classes.total()} of other classes"
    if fair.other_classes:
        others += f" ({', '.join(f'{name} {count}' for name, count in sorted(fair.other_classes.items()))})"
    short = len(fair.utterances) - broken - len(scored)
    lines = [
        f"{checkpoint.title}; on {corpus.name}{synthetic}: {len(scored)} utterances; left out: {fair.heard} used "
        f"to train or choose it, {others}, {short} shorter than {checkpoint.length:g} s, {broken} broken"
    ]
    if gone := [name for name in checkpoint.classes if name not in corpus.classes]:
        lines.append(f"the corpus has no class that is spelt {', '.join(gone)}, which the checkpoint knows too")
    if fair.heard:
        lines.append("trained on this corpus: its speakers were heard in training, unless the split kept them apart")
    return "\n".join(lines)


def main() -> int:
    """Run `python evaluate.py` and return the exit status."""
    args = command_line().parse_args()
    import checkpoints
    import data
    from audio import SAMPLE_RATE
    from device import choose_device, explaining_out_of_memory
    from inference import Recogniser

    check(args)
    device = choose_device(args.gpu, args.device)
    checkpoint = checkpoints.load(args.checkpoint, args.online)
    corpus = data.corpus(args.corpus, args.happy or checkpoint.config["settings"]["happy"])
    fair = fair_part(corpus, checkpoint, args.corpus)
    with explaining_out_of_memory("--gpu -1 computes on the CPU"):
        recognise = Recogniser(checkpoint, device)
        predicted = predict_all(recognise, fair.utterances, args.jobs)
    if odd := [u.path for u, _, _ in predicted if u.path in fair.unread]:
        raise UserError(f"{odd[0]} could not be read at first, so it is not known whether it was trained on: run again")
    keep = args.padding or checkpoint.padding
    scored = [
        (utterance, label, prediction)
        for utterance, label, prediction in predicted
        if keep or round(prediction.seconds * SAMPLE_RATE) >= checkpoint.size
    ]
    if not predicted:
        raise UserError(f"{args.corpus}: all {len(fair.utterances)} recordings are broken")
    if not scored:
        length = f"{checkpoint.length:g} s"
        raise UserError(f"{args.corpus} has no utterance of at least {length}; --padding keeps shorter ones")
    broken = len(fair.utterances) - len(predicted)
    print(say_scored(checkpoint, corpus, fair, scored, broken), end="\n\n")
    print(report(scored, recognise), flush=True)
    if args.csv:
        write_predictions(args.csv, scored, checkpoint.classes)
        print(args.csv, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    cli.run_main(main, "interrupted: nothing is kept; the same command begins anew")
