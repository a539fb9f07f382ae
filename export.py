"""Write a checkpoint as one ONNX file, for ONNX Runtime and whatever else reads ONNX.

    python export.py --checkpoint CHECKPOINT --output model.onnx              # features in, logits out
    python export.py --checkpoint CHECKPOINT --output model.onnx --waveform   # samples in, logits out
    python export.py --checkpoint CHECKPOINT --output model.onnx --waveform --check recording.wav

A row of the input is one segment; the batch B may have any size. The input is features (B, 1, F, T) or, with
--waveform, samples (B, N) at 16 kHz. With --waveform the feature extraction is inside, as matrix products that any
runtime has.

To predict an utterance as predict.py does, cut it into segments that start every `hop_samples`, leave silent segments
out, and take the mean of the segments' logits. (Repeat an utterance shorter than a segment until it fills one.) The
probabilities are the softmax of this mean, divided by `temperature` if there is one. The file's metadata hold
`hop_samples`, `temperature`, the names of the classes, and where the weights came from.

Before the file is kept, it is run in ONNX Runtime beside torch, on the recordings after --check or else on noise.
This command needs `pip install -r requirements-export.txt`.
"""

import argparse
import json
import logging
import timeit
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cli import UserError
from files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from checkpoints import Checkpoint

OPSET = 18
TOLERANCE = 1e-4  # largest allowed difference of logits, relative to the largest logit if that is above 1
FEWEST_CHECKED, MOST_CHECKED = 16, 1000  # how many segments are compared: of noise, and at most of recordings
REPEATS = 5


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    add = parser.add_argument
    cli.add_checkpoint(parser)
    add("--output", type=Path, required=True, metavar="FILE", help="the .onnx file to write")
    add("--waveform", action="store_true", help="take samples instead of features")
    add("--opset", type=int, choices=range(18, 24), default=OPSET, metavar="N",
        help=f"ONNX operator set, 18 to 23 (default: {OPSET})")  # fmt: skip
    add(
        "--check",
        nargs="+",
        default=[],
        metavar="FILE",
        help="recordings on which to compare the file with torch, instead of noise",
    )
    return parser


def metadata(checkpoint: "Checkpoint", waveform: bool) -> dict[str, str]:
    """Return the metadata of the file, as text; whatever is not a text is JSON."""
    config = checkpoint.config
    values: dict[str, Any] = {
        "input": "waveform" if waveform else "features", "classes": checkpoint.classes, "sample_rate": 16000,
        "segment_samples": checkpoint.size, "hop_samples": checkpoint.hop, "short_recordings_in_training":
        "repeated" if checkpoint.padding else "left out", "feature": checkpoint.feature, "n_mfcc": checkpoint.n_mfcc,
        "shape": config["shape"], "temperature": checkpoint.temperature, "model": config["model"],
        "corpus": config["corpus"], "dataset": config["dataset"], "licence": config["licence"],
        "synthetic": config["synthetic"], "split": config["split"], "seed": config["seed"], "rule": config["rule"],
        "epoch": config["epoch"], "weights": config["weights"],
    }  # fmt: skip
    return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in values.items()}


def convert(checkpoint: "Checkpoint", output: Path, waveform: bool = False, opset: int = OPSET) -> None:
    """Write a checkpoint's network as one ONNX file, weights included. (`compare` compares it with torch.)"""
    import torch

    from frontend import Frontend

    c, network = checkpoint, checkpoint.module
    rows, frames = c.config["shape"]
    if waveform:
        network = torch.nn.Sequential(Frontend(c.feature, c.size, c.n_mfcc), network).eval()
        example = torch.randn(2, c.size, generator=torch.Generator().manual_seed(0)) / 10
    else:
        example = torch.randn(2, 1, rows, frames, generator=torch.Generator().manual_seed(0))
    for name in ("torch.onnx", "onnxscript"):  # they warn of missing packages and unfolded constants, which do no harm
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (example,), dynamo=True, opset_version=opset, verbose=False,
            input_names=["waveform" if waveform else "features"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    if shape and isinstance(shape[0], int):  # torch does not say that it made a constant of the batch's size
        raise UserError(
            f"{c.config['model']} would be exported for batches of 2 alone: its class makes a number of the batch's "
            "size, as len(x) does; write x.shape[0]"
        )
    program.model.metadata_props.update(metadata(c, waveform))
    program.save(output, external_data=False)


def segments_of(checkpoint: "Checkpoint", files: list[str]) -> "NDArray[np.float32]":
    """Return segments `(S, N)` of the recordings, cut as for a prediction; at most some 1000, spread over all of them.
    Without recordings, the segments are noise. Raises AudioError."""
    import numpy as np

    import audio
    import features

    c = checkpoint
    if not files:
        return np.random.default_rng(0).normal(0, 0.1, (FEWEST_CHECKED, c.size)).astype(np.float32)
    each = max(1, MOST_CHECKED // len(files))  # limited, as the overlapping segments of an hour take 2 GB
    cut = (features.segment(audio.load_audio(f), c.length, c.overlap, padding=True) for f in files)
    return np.concatenate([segments[:: -(-len(segments) // each)] for segments in cut])


@dataclass(frozen=True)
class Result:
    """How an exported file compares with torch."""

    difference: float  # the largest difference between two logits
    largest: float  # the largest absolute value of a logit
    torch_ms: float  # milliseconds that a segment takes in torch
    onnx_ms: float  # milliseconds that a segment takes in ONNX Runtime


def compare(checkpoint: "Checkpoint", file: Path, waveform: bool, segments: "NDArray[np.float32]") -> Result:
    """Compare an exported file in ONNX Runtime with the checkpoint in torch, both on the CPU, on segments `(S, N)`.
    Times are the best of five, for 16 segments at a time."""
    import numpy as np
    import onnxruntime
    import torch

    import features
    from inference import Recogniser

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name, recognise, c = session.get_inputs()[0].name, Recogniser(checkpoint), checkpoint

    def ready(some: "NDArray[np.float32]") -> "NDArray[np.float32]":
        if waveform:
            return np.ascontiguousarray(some)
        return features.extract(c.feature, some, c.n_mfcc).unsqueeze(1).numpy()

    ours = recognise.logits(segments)
    theirs = [session.run(None, {name: ready(segments[i : i + 16])})[0] for i in range(0, len(segments), 16)]
    some = segments[:16]
    given = ready(some)
    x = torch.from_numpy(given)

    def with_torch() -> None:
        with torch.inference_mode():
            recognise.logits(some) if waveform else recognise.network(x)

    def milliseconds(function: Any) -> float:
        return 1000 * min(timeit.repeat(function, number=1, repeat=REPEATS)) / len(some)

    return Result(
        difference=float(np.abs(np.concatenate(theirs) - ours).max()),
        largest=float(np.abs(ours).max()),
        torch_ms=milliseconds(with_torch),
        onnx_ms=milliseconds(lambda: session.run(None, {name: given})),
    )


def main() -> None:
    """Run `python export.py`."""
    args = command_line().parse_args()
    if args.output.suffix != ".onnx":
        raise UserError(f"--output {args.output}: the file's name must end in .onnx")
    cli.need("export", "requirements-export.txt", "onnx", "onnxruntime", "onnxscript")
    import checkpoints

    checkpoint = checkpoints.load(args.checkpoint, args.online)
    segments = segments_of(checkpoint, args.check)
    with atomic(args.output) as temporary:
        convert(checkpoint, temporary, args.waveform, args.opset)
        result = compare(checkpoint, temporary, args.waveform, segments)
        allowed = TOLERANCE * max(1.0, result.largest)
        if not result.difference <= allowed:
            raise UserError(
                f"{args.output} is not kept: its logits differ from torch's by {result.difference:.1e}, "
                f"more than {allowed:.1e}; try another --opset"
            )
    kind = f"{args.output}: {'waveform' if args.waveform else 'features'} to logits, opset {args.opset}, "
    print(f"{kind}{args.output.stat().st_size / 1e6:.1f} MB; {checkpoint.title}")
    what = f"{len(args.check)} recording{'s' * (len(args.check) > 1)}" if args.check else "noise"
    print(
        f"on {len(segments)} segments of {what} its logits differ from torch's by at most {result.difference:.1e}; "
        f"a segment takes {result.onnx_ms:.2f} ms in ONNX Runtime and {result.torch_ms:.2f} ms in torch on this CPU"
    )


if __name__ == "__main__":
    cli.run_main(main, "interrupted: nothing is kept; the same command begins anew")
