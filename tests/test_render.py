"""A table in every format."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from made_runs import HALF, LABELS, RIGHT, make_run

import metrics
import render
import report

pytestmark = pytest.mark.usefixtures("two_speakers_will_do")  # made runs have no more


class Reader(HTMLParser):
    """Checks nesting and collects cells and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def document(tmp_path: Path) -> render.Document:
    for seed in range(6):
        make_run(tmp_path, RIGHT, LABELS, seed=seed)
        make_run(tmp_path, HALF, LABELS, seed=seed, model="MACNN")
    return report.named_table("comparison", report.runs(tmp_path), command="report.py --runs a_b&c<d> 50%")[0]


def test_csv_reads_back(document: render.Document) -> None:
    frame = pd.read_csv(io.StringIO(render.csv(document)))
    glam = frame[(frame["kind"] == "score") & (frame["dataset"] == "impro") & (frame["model"] == "GLAM")]
    assert glam["score"].tolist() == list(metrics.SCORES)
    assert glam["mean"].tolist() == [100] * 4 and glam["n"].tolist() == [6] * 4 and glam["folds"].isna().all()
    assert glam["difference"].tolist() == pytest.approx([100 - 81.18, 100 - 79.25, 100 - 79.87, 100 - 80.99])
    assert set(frame[frame["status"] == "missing"]["published_mean"].dropna()) >= {70.73, 62.53}
    test = frame[frame["kind"] == "comparison"]
    assert test["p"].tolist() == pytest.approx([2**-5] * 2) and set(test["verdict"]) == {"GLAM is better"}


def test_markdown_is_a_table(document: render.Document) -> None:
    text = render.markdown(document)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1 and set(block[1]) == {"|", "-"}
    odd = render.Document("t", [], [render.Section(pd.DataFrame({"a|b": ["x|y\nz"]}))], pd.DataFrame())
    assert "| a\\|b" in render.markdown(odd) and "x\\|y z" in render.markdown(odd)


def test_names_in_anothers_records_are_no_formulas_and_no_html() -> None:
    odd = ["=1+1", "+x", "-x()", "@x", "\t=1"]
    fine = ["-3.5", "-", "a=b", "", "1+1"]  # -1 and + may be classes
    numbers = pd.DataFrame({"name": [*odd, *fine], "difference": [-1.5, 10, None, True, -2, *[0.25] * 5]}, dtype=object)
    shown = pd.read_csv(io.StringIO(render.csv(render.Document("t", [], [], numbers))), dtype=str, na_filter=False)
    assert shown["name"].tolist() == [*(f"'{name}" for name in odd), *fine]
    assert shown["difference"].tolist() == ["-1.5", "10", "", "True", "-2", *["0.25"] * 5]
    cells = pd.DataFrame({"Model": ["<img src=x>", "`"], "p": ["<0.0001", "</b>"], "More": ["`<!--", "`"]})
    document = render.Document("t", ["corpus <b>, made with `a<b> c`"], [render.Section(cells, "<i>")], numbers)
    text = render.markdown(document)
    assert re.findall("<.|&lt;.", text) == ["&lt;b", "<b", "&lt;i", "&lt;i", "<0", "&lt;!", "&lt;/"]
    assert "made with `a<b> c`" in text


def test_latex_keeps_commands_as_they_are_typed() -> None:
    said = render.latex_text("20 % – made with `report.py --set n_mfcc=13`, `a`.")
    assert said == r"20 \% -- made with \texttt{report.py -{}-set n\_mfcc=13}, \texttt{a}."


def test_latex_is_balanced(document: render.Document) -> None:
    text = render.latex(document)
    bare = re.sub(r"\\[{}%$&#_]", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    begun, ended = (re.findall(rf"\\{word}{{(\w+\*?)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table*", "table*", "tabular", "tabular"]
    for table in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.S):
        rows = [re.sub(r"\\&", "", line) for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 2 and len({row.count("&") for row in rows}) == 1
    assert not [character for character in text if ord(character) > 127 and character not in "“”é"]
    assert r"a\_b\&c\textless{}d\textgreater{} 50\%" in text
    assert r"$-$50.00" in text and r"81.18 $\pm$ 1.47" in text and "two-sided Wilcoxon" in text
    assert "Dataset & Model & Source & WA & UA & macro F1 & weighted F1 & n & Utterances" in text


def test_html_is_one_page_that_loads_nothing(document: render.Document) -> None:
    document.images.append(render.Image("a “caption” <b>", b"<svg xmlns='http://www.w3.org/2000/svg'/>"))
    text = render.page(document)
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.loads)
    assert "@import" not in text and "url(" not in text and "<script" not in text
    assert "prefers-color-scheme: dark" in text and "a_b&amp;c&lt;d&gt; 50%" in text
    assert reader.rows[0][:3] == ["Dataset", "Model", "Source"]
    assert any(row[1] == "GLAM" and row[3].startswith("100.00") for row in reader.rows)
    assert "two-sided Wilcoxon" in text and 'class="synthetic"' not in text
    document.synthetic = True
    assert 'class="synthetic"' in render.page(document)


def test_an_interval_stands_on_a_line_of_its_own() -> None:
    said = render._cell("50.00 ± 1.00 [40.00, 60.00]")
    assert said == '<td>50.00 ± 1.00<span class="interval">[40.00, 60.00]</span></td>'
