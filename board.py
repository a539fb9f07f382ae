"""Learning curves and settings of a run for TensorBoard (`train.py --tensorboard`).

They are made from the run folder's records, so that an interrupted run that goes on shows every epoch once.
"""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import records
from metrics import SCORES

FOLDER = "tensorboard"
WHOLE = f"{FOLDER}/whole"  # an empty file, written last: it says that the curves are complete


def remove(folder: Path) -> None:
    """Remove the curves of a run folder, if it has any, complete or not."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class Board:
    """Writes `tensorboard/` of a run folder that has none: the settings, the given epochs, then each added epoch."""

    def __init__(self, folder: Path, run: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / FOLDER))
        weakref.finalize(self, self.writer.close)  # otherwise a run that fails would leave the writer's thread behind
        self.folder, self.run = folder, run
        self.writer.add_text("run", "    " + json.dumps(run, indent=2, ensure_ascii=False).replace("\n", "\n    "))
        for record in epochs:
            self.add(record)

    def add(self, record: dict[str, Any]) -> None:
        """Write one epoch: its loss, learning rate and, for each part, the scores in per cent."""
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
        """Write the settings and the last scores, by which TensorBoard compares runs, and close the files."""
        settings = {k: v if isinstance(v, int | float) else str(v) for k, v in self.run["settings"].items()}
        scores = {f"last/{name}": self.last["test"][name] for name in SCORES}
        self.writer.add_hparams(settings, scores, run_name=".", global_step=self.last["epoch"])
        self.writer.close()
        (self.folder / WHOLE).touch()


def write(folder: Path) -> None:
    """Write `tensorboard/` of a finished run, unless it is complete; a killed process may have left a part of it."""
    if (folder / WHOLE).exists():  # do not lock in vain: locking takes the right to write in the folder
        return
    with records.locked(folder, wait=True):
        if not (folder / WHOLE).exists():  # another process may have written the curves meanwhile
            remove(folder)
            run = records.read_run(folder)
            Board(folder, run.config, run.epochs).close()
