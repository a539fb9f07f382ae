"""Serve a web page that recognises emotions: record or upload speech, see its class and its probabilities over time.

    python app.py                                  # every checkpoint under path.py's RUNS
    python app.py --checkpoints runs/impro --port 8000

`python train.py --save_model` makes checkpoints; `pip install -r requirements-app.txt` installs what the page needs.
Only this machine can reach the page, unless --host says otherwise. The page sends nothing elsewhere, and deletes
recordings when it stops.
"""

import argparse
import html
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
import path
from audio import SAMPLE_RATE
from cli import UserError, warn
from files import walk

if TYPE_CHECKING:
    import gradio
    from numpy.typing import NDArray

    from inference import Prediction, Recogniser

LOCAL = ("127.0.0.1", "localhost", "::1")
MEGABYTE = 2**20
INVITATION = "Record or upload speech."
FONTS = ["system-ui", "sans-serif"]  # fonts that every browser has, so that none is fetched
KEPT = 3600  # seconds for which the recording of an idle page is kept
STYLE = """
.gradio-container {max-width: 1180px !important; width: 100%; margin: auto}
#answer h2 {font-size: 2rem; margin: 0}
#answer .refused {color: #b42318; font-weight: 600}
.synthetic {background: #fef0c7; color: #7a2e0e; border-radius: 6px; padding: 2px 8px; font-weight: 600}
"""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    add = parser.add_argument
    runs = cli.in_help(path.RUNS)
    add("--checkpoints", type=Path, metavar="DIR", help=f"folder in which checkpoints are looked for (default: {runs})")
    add("--host", default="127.0.0.1", metavar="IP", help="address to answer on (default: 127.0.0.1, this machine)")
    add("--port", type=int, default=7860, metavar="N", help="port to answer on (default: 7860)")
    add(
        "--max_minutes",
        type=float,
        default=10,
        metavar="M",
        help="longest recording that is taken, in minutes (default: 10)",
    )
    add(
        "--max_mb", type=float, default=100, metavar="M", help="largest file that is taken, in megabytes (default: 100)"
    )
    return parser


# ---------------------------------------------------------------------------------------------- checkpoints


def find_checkpoints(root: Path) -> dict[str, dict[str, Any]]:
    """Return the config.json of every checkpoint under a folder, by the checkpoint's path below that folder.

    Broken checkpoints are left out with a warning. Raises UserError where there is none.
    """
    import checkpoints

    found: dict[str, dict[str, Any]] = {}
    for folder, names in sorted(walk(root)):
        if checkpoints.CONFIG not in names or checkpoints.WEIGHTS not in names:
            continue
        try:
            config = checkpoints.read_config(folder / checkpoints.CONFIG)
        except UserError as error:
            warn(str(error))
            continue
        found[str(folder.relative_to(root))] = config
    if not found:
        raise UserError(
            f"there is no checkpoint under {root}: python train.py --save_model makes one, "
            "--checkpoints DIR names another folder"
        )
    return dict(sorted(found.items(), key=lambda item: item[1]["synthetic"]))  # real speech first


def title(name: str, config: dict[str, Any]) -> str:
    """Return the line of the menu that stands for a checkpoint."""
    synthetic = "SYNTHETIC: " if config["synthetic"] else ""
    fold = "" if config["fold"] is None else f" fold {config['fold']}"
    run = f"split {config['split']}{fold}, seed {config['seed']}, epoch {config['epoch']}"
    return f"{synthetic}{config['model']} on {config['dataset']}, {run} · {name.removesuffix('/checkpoint')}"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is. Unescaped, a checkpoint could make the page load foreign pictures."""
    return html.escape(text).translate({ord(c): f"&#{ord(c)};" for c in "\\`*_[]!$~"})


def describe(config: dict[str, Any]) -> str:
    """Return the text under the menu: the checkpoint's classes, its test scores, and the licence of its corpus."""
    scores = config["scores"]["test"]
    optimistic = ", chosen on these utterances: optimistic" if config["rule"] == "paper" else ""
    lines = [
        f"Classes: {', '.join(config['classes'])}.",
        f"On the test utterances of {config['corpus']}: WA {scores['WA']:.1f} %, UA {scores['UA']:.1f} % "
        f"(rule {config['rule']}{optimistic}).",
        f"Licence of the training corpus: {config['licence']}.",
    ]
    text = "<br>".join(map(escape, lines))
    if not config["synthetic"]:
        return text
    return f'<span class="synthetic">SYNTHETIC</span> Trained on made-up sounds: its answers mean nothing.<br>{text}'


@lru_cache(maxsize=4)
def recogniser(folder: Path) -> "Recogniser":
    """Return the Recogniser of a checkpoint; the last four stay in memory."""
    import checkpoints
    from inference import Recogniser

    return Recogniser(checkpoints.load(folder))


# ------------------------------------------------------------------------------------------------ recognition


def at_most(waves: Iterable["NDArray"], minutes: float) -> Iterator["NDArray"]:
    """Yield the blocks of a recording unchanged. Raises UserError once they are longer than `minutes` in all."""
    samples = 0
    for wave in waves:
        samples += len(wave)
        if samples > minutes * 60 * SAMPLE_RATE:
            raise UserError(f"it is longer than {minutes:g} min; cut it, or use predict.py")
        yield wave


def recognise(folder: Path, file: str, max_minutes: float, max_mb: float) -> "Prediction":
    """Return the prediction for an uploaded recording. Raises UserError, worded for the person who uploaded it."""
    from audio import stream_audio

    name = Path(file).name
    try:
        model = recogniser(folder)
    except UserError as error:
        warn(str(error))
        raise UserError("this checkpoint is damaged: choose another") from None
    try:
        if (size := Path(file).stat().st_size) > max_mb * MEGABYTE:
            raise UserError(f"it has {size / MEGABYTE:.1f} MB and {max_mb:g} are taken; cut it, or use predict.py")
        return model.blocks(at_most(stream_audio(file), max_minutes), name)
    except UserError as error:
        fault = str(error).replace(str(file), "").lstrip(": ")
        raise UserError(f"{name} cannot be used: {fault}") from None


def answer(prediction: "Prediction") -> str:
    """Return the result in Markdown."""
    note = f" {escape(prediction.note).capitalize()}." if prediction.note else ""
    segments = f"{len(prediction.starts)} segment" + "s" * (len(prediction.starts) != 1)
    head = f"## {escape(prediction.label)}"
    return f"{head}\n{prediction.probabilities.max():.0%} likely, by {segments} in {prediction.seconds:.1f} s.{note}"


# ------------------------------------------------------------------------------------------------------- page


def make_page(root: Path, max_minutes: float, max_mb: float, pictures: Path) -> "gradio.Blocks":
    """Return the page for the checkpoints under `root`; it draws into `pictures`. Raises UserError if there is none."""
    import gradio as gr

    import inference  # noqa: F401  # now, so that the first answer does not wait for it
    from timeline import plot

    configs = find_checkpoints(root)
    first = next(iter(configs))

    def respond(chosen: str, file: str | None) -> tuple[str, str, Any, Any]:
        about = describe(configs[chosen])
        nothing = gr.Label(visible=False), gr.Image(visible=False)
        if file is None:
            return about, INVITATION, *nothing
        try:
            prediction = recognise(root / chosen, file, max_minutes, max_mb)
        except UserError as error:
            return about, f'<p class="refused">{escape(str(error))}</p>', *nothing
        with tempfile.NamedTemporaryFile(dir=pictures, suffix=".png", delete=False) as picture:
            plot(prediction, Path(picture.name), recogniser(root / chosen).checkpoint.title)
        shares = dict(zip(prediction.classes, map(float, prediction.probabilities), strict=True))
        return about, answer(prediction), gr.Label(shares, visible=True), gr.Image(picture.name, visible=True)

    with gr.Blocks(title="Emotion in speech", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(
            "# Emotion in speech\nA model hears how something is said, not what is said. Recordings of "
            f"{max_minutes:g} min at most; they stay on the machine that serves this page."
        )
        menu = [(title(name, config), name) for name, config in configs.items()]
        chosen = gr.Dropdown(menu, value=first, label="Checkpoint", elem_id="checkpoint")
        about = gr.Markdown(describe(configs[first]), elem_id="about")
        with gr.Row():
            with gr.Column(scale=4):
                audio = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Speech", elem_id="speech",
                                 buttons=["download"])  # fmt: skip
            with gr.Column(scale=5):
                result = gr.Markdown(INVITATION, elem_id="answer")
                shares = gr.Label(label="Probabilities", show_heading=False, elem_id="probabilities", visible=False)
        picture = gr.Image(type="filepath", format="png", label="Emotion over time", show_label=False, visible=False,
                           buttons=["download", "fullscreen"], elem_id="course")  # fmt: skip
        gr.on([audio.change, chosen.change], respond, [chosen, audio], [about, result, shares, picture],
              api_visibility="private", show_progress="minimal")  # fmt: skip
    return page


def _in_url(host: str) -> str:
    """Return a host as URLs have it, and Gradio: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def serve(page: "gradio.Blocks", host: str, port: int, max_mb: float, pictures: Path) -> None:
    """Serve the page until interrupted. Raises UserError where the address is taken or not this machine's."""
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # without this, a foreign site whose name leads to this machine could use the page through its visitor's browser
    names = [_in_url(name) for name in LOCAL] if host in LOCAL else ["*"]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=names)
    at = _in_url(host)
    theme = gr.themes.Base(primary_hue="blue", font=FONTS, font_mono=FONTS)
    try:
        page.launch(server_name=at, server_port=port, share=False, quiet=True, footer_links=[], css=STYLE,
                    theme=theme, max_file_size=int(max_mb * MEGABYTE), allowed_paths=[str(pictures)], ssr_mode=False,
                    run_history=False, enable_monitoring=False, prevent_thread_lock=True,
                    app_kwargs={"middleware": [guard]})  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"no page can be served at {at}:{port} ({error}); choose another --port or --host") from None
    print(f"http://{at}:{port}  (Ctrl-C stops it)", flush=True)
    page.block_thread()


def main() -> None:
    """Run `python app.py`."""
    args = command_line().parse_args()
    if not (0 < args.max_minutes < float("inf") and 0 < args.max_mb < float("inf")):
        raise UserError("--max_minutes and --max_mb must be greater than 0")
    if not 0 < args.port < 65536:
        raise UserError(f"--port {args.port}: must be from 1 to 65535")
    if args.host not in LOCAL:
        warn(f"--host {args.host}: whoever reaches this machine can use the page")
    with tempfile.TemporaryDirectory(prefix="app-") as scratch:
        os.environ |= {"GRADIO_TEMP_DIR": scratch, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        cli.need("the page", "requirements-app.txt", "gradio")
        pictures = Path(scratch) / "pictures"  # not the uploads' folder: files of an allowed folder are served as ours
        pictures.mkdir()
        page = make_page(args.checkpoints or path.RUNS, args.max_minutes, args.max_mb, pictures)
        serve(page, args.host, args.port, args.max_mb, pictures)


if __name__ == "__main__":
    cli.run_main(main)
