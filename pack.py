"""Make the records of finished runs smaller, without loss, to commit them or to pass them on.

    python pack.py runs

Texts are compressed by gzip, predictions by LZMA. Every command here reads packed runs as before, and `numpy.load`
reads the predictions. Two kinds of runs are left as they are: runs that another process holds, and runs that
`report.py --audit` objects to. Packed runs are not looked into again.
"""

import gzip
import importlib.util
import io
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

import audit
import cli
import records
from files import atomic, read_bytes, sweep_temporaries


def pack_text(file: Path) -> None:
    """Replace a text file by its compressed form, `file`.gz."""
    packed = Path(f"{file}.gz")
    text = read_bytes(file)
    with atomic(packed) as temporary:
        temporary.write_bytes(gzip.compress(text, mtime=0))  # undated, so that the bytes are always the same
    try:
        file.unlink()
    except OSError:
        packed.unlink(missing_ok=True)  # the text is still there, so the copy goes
        raise


def pack_arrays(file: Path) -> None:
    """Compress an .npz by LZMA, in Fortran order, as logits `(E, U, C)` differ least from one epoch to the next."""
    with np.load(file, allow_pickle=False) as arrays, atomic(file) as temporary, zipfile.ZipFile(temporary, "w") as out:
        for name in arrays.files:
            member = zipfile.ZipInfo(f"{name}.npy")  # always dated 1980
            member.compress_type = zipfile.ZIP_LZMA
            with out.open(member, "w") as f:
                np.lib.format.write_array(f, np.asfortranarray(arrays[name]), allow_pickle=False)


def is_packed(file: Path) -> bool:
    """Return whether `pack_arrays` has written this .npz; False where it cannot be read."""
    with suppress(Exception), zipfile.ZipFile(io.BytesIO(read_bytes(file))) as packed:  # zipfile raises many kinds
        return all(member.compress_type == zipfile.ZIP_LZMA for member in packed.infolist())
    return False


def _left(folder: Path, why: object) -> bool:
    """Warn that a run is not packed; returns False."""
    cli.warn(f"{folder} is left as it is: {why}")
    return False


def pack(folder: Path) -> bool:
    """Pack a run's records, and return whether anything was packed. A run that is unfinished, damaged or held by
    another process is left as it is; a warning names it."""
    predictions = folder / "predictions.npz"
    with records.locked(folder) as mine:
        if not mine:
            return _left(folder, "another process holds it")
        sweep_temporaries(folder)  # a packing that was killed may have left some
        texts = [folder / name for name in records.TEXTS if (folder / name).exists()]
        has_arrays = not is_packed(predictions)
        if records.finished(folder) and not (texts or has_arrays):
            return False
        if problems := audit.problems(folder):
            return _left(folder, problems[0])
        for file in texts:
            pack_text(file)
        if has_arrays:
            pack_arrays(predictions)
    return True


def pack_if_allowed(folder: Path) -> bool:
    """Call `pack`, but only warn of a run that another user owns or that has links; return whether it was packed."""
    try:
        return pack(folder)
    except (PermissionError, records.BrokenRecord) as error:
        why = cli.refusal(error) if isinstance(error, PermissionError) else error
        return _left(folder, why)


def size(folders: list[Path]) -> int:
    """Return how many bytes the records in run folders take, without the weights."""
    total = 0
    for folder in folders:
        with suppress(FileNotFoundError):  # a run may be deleted meanwhile
            for file in folder.iterdir():
                with suppress(FileNotFoundError):  # it may be a temporary file of a run in training
                    total += file.stat().st_size if file.is_file() else 0
    return total


def main() -> None:
    """Run `python pack.py`."""
    arguments = cli.parser(description=__doc__)
    arguments.add_argument("runs", type=Path, metavar="RUNS", help="a folder of runs, such as `runs`")
    root = arguments.parse_args().runs
    if importlib.util.find_spec("_lzma") is None:
        raise cli.UserError("this Python lacks the module lzma, as one built without liblzma does: use one that has it")
    folders = records.folders(root)
    if not folders:
        raise cli.UserError(f"{root} holds no run folder; name the folder that train.py or sweep.py wrote to")
    before = size(folders)
    packed = sum(pack_if_allowed(folder) for folder in tqdm(folders, unit="run", disable=None))
    print(f"{packed} of {len(folders)} runs packed; {before / 1e6:.1f} MB before, {size(folders) / 1e6:.1f} MB now")


if __name__ == "__main__":
    cli.run_main(main)
