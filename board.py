"""Learning curves and settings of a run for TensorBoard (`train.py --tensorboard`).

They are made of the run folder's own records, so an interrupted run that goes on shows every epoch once.
"""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import records
from metrics import SCORES

FOLDER = "tensorboard"
WHOLE = f"{FOLDER}/whole"  # an empty file, written last


def remove(folder: Path) -> None:
    """Remove the curves of a run folder, if it has any: a part, or those of an earlier start."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class Board:
    """Writes `tensorboard/` of a run folder that has none: its settings, the epochs so far, and then each `add`ed."""

    def __init__(self, folder: Path, run: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / FOLDER))
        weakref.finalize(self, self.writer.close)  # or a run that fails would leave the writer's thread behind
        self.folder, self.run = folder, run
        self.writer.add_text("run", "    " + json.dumps(run, indent=2, ensure_ascii=False).replace("\n", "\n    "))
        for record in epochs:
            self.add(record)

    def add(self, record: dict[str, Any]) -> None:
        """One epoch: loss, learning rate and, for each part, the scores in per cent."""
        epoch = record["epoch"]
        self.writer.add_scalar("loss/train", record["train_loss"], epoch)
        self.writer.add_scalar("learning_rate", record["lr"], epoch)
        for part in ("val", "test"):
            if part in record:
                for name in SCORES:
                    self.writer.add_scalar(f"{name}/{part}", record[part][name], epoch)
        self.last = record
        self.writer.flush()

    def close(self) -> None:
        """Finish with the settings and last scores that TensorBoard compares runs by."""
        settings = {k: v if isinstance(v, int | float) else str(v) for k, v in self.run["settings"].items()}
        scores = {f"last/{name}": self.last["test"][name] for name in SCORES}
        self.writer.add_hparams(settings, scores, run_name=".", global_step=self.last["epoch"])
        self.writer.close()
        (self.folder / WHOLE).touch()


def write(folder: Path) -> None:
    """Make `tensorboard/` of a finished run that has none, or a part that a killed process left."""
    if (folder / WHOLE).exists():  # a folder that needs nothing is not locked, which takes a right to write in it
        return
    with records.locked(folder, wait=True):
        if not (folder / WHOLE).exists():  # nor has another process made them meanwhile
            remove(folder)
            run = records.read_run(folder)
            Board(folder, run.config, run.epochs).close()
