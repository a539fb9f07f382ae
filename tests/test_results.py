"""Committed results: the records pass the audit, and every figure quoted is theirs."""

import csv
import io
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "results" / "emodb_as_iemocap"


def report(*words, folder=FOLDER):
    environment = {**os.environ, "GLAM_RUNS": str(folder / "runs")}
    done = subprocess.run(
        [sys.executable, "report.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", [FOLDER, FOLDER.parent / "synthetic"], ids=lambda folder: folder.name)
def test_records_pass_the_audit(folder):
    assert "20 run folders checked" in report("--audit", folder=folder)


def test_the_committed_table_is_the_records():
    committed = (FOLDER / "protocols.csv").read_text(encoding="utf-8")
    assert list(csv.DictReader(io.StringIO(report("--table", "protocols", "--format", "csv")))) == list(
        csv.DictReader(io.StringIO(committed))
    )


def test_figures_quoted_in_the_readme_are_the_records():
    rows = csv.DictReader(io.StringIO(report("--table", "protocols", "--format", "csv")))
    found = {(r["split"], r["rule"], r["score"]): r for r in rows if r.get("mean") and r["folds"] != "averaged"}
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Results on real speech")[1].split("\n## ")[0]
    quoted = re.findall(r"\| `(\S+)`, `(\w+)`.*? \| ([\d.]+).*? \| ([\d.]+)", section)
    assert len(quoted) == 4
    for split, rule, *values in quoted:
        for score, value in zip(("WA", "UA"), values, strict=True):
            assert f"{float(found[split, rule, score]['mean']):.2f}" == value, (split, rule, score)
