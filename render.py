"""Turn a table with its caption into Markdown, CSV, LaTeX or one self-contained HTML page."""

import base64
import html
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli import printable_lines

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class Section:
    """One table as a reader sees it. A row whose first column is empty belongs to the row above."""

    frame: "DataFrame"  # its cells are text
    heading: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Image:
    """A figure of an HTML page: its caption and its SVG."""

    caption: str
    svg: bytes


@dataclass
class Document:
    """What a report prints: sections of text for readers, and the same numbers for CSV."""

    title: str
    caption: list[str]
    sections: list[Section]
    numbers: "DataFrame"
    images: list[Image] = field(default_factory=list)
    synthetic: bool = False


def markdown(document: Document) -> str:
    """Return the document in GitHub's Markdown; columns are padded so that a terminal shows them aligned."""
    blocks = [f"## {document.title}", *document.caption]
    for section in document.sections:
        if section.heading:
            blocks.append(f"### {section.heading}")
        blocks.append(_markdown_table(section.frame))
        if section.notes:
            blocks.append("\n".join(f"- {note}" for note in section.notes))
    text = re.sub(r"(`[^`|\n]*`)|<(?=[a-zA-Z/!?])", lambda found: found[1] or "&lt;", "\n\n".join(blocks))  # no HTML
    return printable_lines(text) + "\n"


def _markdown_table(frame: "DataFrame") -> str:
    rows = [list(frame.columns), *frame.to_numpy().tolist()]
    cells = [[str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(frame.columns))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def csv(document: Document) -> str:
    """Return the numbers in full, one score a row. Names that a spreadsheet would take for formulas begin with a '."""
    named = document.numbers.replace(r"^(?=[=+@\t\r-])(?![+-]?[\d.]*$)", "'", regex=True)
    return named.to_csv(index=False, lineterminator="\n")


# --------------------------------------------------------------------------------------------------- LaTeX

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "×": r"$\times$", "→": r"$\to$", "α": r"$\alpha$",
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Return LaTeX that prints this text."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in str(text))


def latex_text(text: str) -> str:
    """Return LaTeX that prints text with `commands` in it so that these can be copied: in them, -- makes no dash."""
    commands = (rf"\texttt{{{latex_escape(part).replace('--', '-{}-')}}}" for part in text.split("`")[1::2])
    plain = (latex_escape(part) for part in text.split("`")[::2])
    return "".join(part for pair in itertools.zip_longest(plain, commands, fillvalue="") for part in pair)


def latex(document: Document) -> str:
    """Return a booktabs table for each section; it needs only `\\usepackage{booktabs,graphicx}`."""
    caption = " ".join([document.title + ".", *document.caption])
    blocks = ["% \\usepackage{booktabs,graphicx}"]
    for number, section in enumerate(document.sections):
        escaped = section.frame.map(latex_escape)
        escaped.columns = [latex_escape(column) for column in escaped.columns]
        body = escaped.to_latex(index=False, escape=False, column_format="l" * len(escaped.columns)).rstrip()
        said = [] if number else [caption]
        if section.heading:
            said.append(f"{section.heading}.")
        text = latex_text(" ".join([*said, *section.notes]))
        blocks += [r"\begin{table*}", r"\centering", rf"\caption{{{text}}}"]
        blocks += [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"]  # only wide tables shrink
        blocks += [body + "}", r"\end{table*}"]
    return "\n".join(blocks) + "\n"


# ---------------------------------------------------------------------------------------------------- HTML

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --page: #ffffff; --band: #f4f6f8;
  --mark: #9a3b00; --mark-page: #fff3e8; --link: #0a58b0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #363d46; --page: #14171b;
  --band: #1d2127; --mark: #ffb885; --mark-page: #35200f; --link: #7db7ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 86rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, li { max-width: 48rem; }
p { margin: .5rem 0; }
.caption, .notes, figcaption { color: var(--soft); font-size: .92rem; }
.notes { padding-left: 1.2rem; }
.synthetic { background: var(--mark-page); color: var(--mark); border-left: 4px solid; padding: .6rem .9rem; font-weight: 600; }
.scroll { overflow-x: auto; margin: 1.25rem 0 .75rem; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; text-align: left; vertical-align: top; white-space: nowrap; }
th { background: var(--band); font-weight: 600; border-bottom: 1px solid var(--line); }
tbody tr.first td { border-top: 1px solid var(--line); }
tbody tr.first:first-child td { border-top: 0; }
tbody tr.more td { color: var(--soft); padding-top: 0; }
.interval { display: block; color: var(--soft); font-size: .85em; }
tbody td:first-child { font-weight: 600; }
code { font: .88em ui-monospace, monospace; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0 2rem; overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 40rem; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .75rem; }
figcaption { margin-top: .5rem; position: sticky; left: 0; }
@media print { main { max-width: none; padding: 0; } .scroll { overflow: visible; border: 0; } th, td { white-space: normal; padding: .2rem .4rem; } figure, tr { break-inside: avoid; } figure img { min-width: 0; } }
"""  # noqa: E501


def _inline(text: str) -> str:
    """Return the text escaped for HTML, with what stands between backticks as code."""
    parts = html.escape(str(text)).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _cell(text: str) -> str:
    """Return an HTML cell; an interval in brackets goes on a line of its own."""
    return "<td>" + re.sub(r" (\[[^\]]+\])$", r'<span class="interval">\1</span>', _inline(text)) + "</td>"


def _html_table(section: Section) -> str:
    head = "".join(f'<th scope="col">{_inline(column)}</th>' for column in section.frame.columns)
    rows = []
    for row in section.frame.to_numpy().tolist():
        kind = "first" if str(row[0]) else "more"
        rows.append(f'<tr class="{kind}">' + "".join(map(_cell, row)) + "</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table></div>"
    )


def _html_image(image: Image) -> str:
    source = "data:image/svg+xml;base64," + base64.b64encode(image.svg).decode()
    alternative = html.escape(image.caption, quote=True)
    return f'<figure><img src="{source}" alt="{alternative}"><figcaption>{_inline(image.caption)}</figcaption></figure>'


def page(document: Document) -> str:
    """Return one HTML page that loads nothing: its style, for light and dark displays, and its figures are inside."""
    body = [f"<h1>{_inline(document.title)}</h1>"]
    if document.synthetic:
        body.append('<p class="synthetic">SYNTHETIC data: these numbers say nothing about speech.</p>')
    body += [f'<p class="caption">{_inline(text)}</p>' for text in document.caption]
    for section in document.sections:
        if section.heading:
            body.append(f"<h2>{_inline(section.heading)}</h2>")
        body.append(_html_table(section))
        if section.notes:
            body.append('<ul class="notes">' + "".join(f"<li>{_inline(note)}</li>" for note in section.notes) + "</ul>")
    body += [_html_image(image) for image in document.images]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


ENDINGS = {".md": "md", ".csv": "csv", ".html": "html", ".tex": "latex"}  # ending of a file: its format
FORMATS: dict[str, Callable[[Document], str]] = {"md": markdown, "csv": csv, "latex": latex, "html": page}
