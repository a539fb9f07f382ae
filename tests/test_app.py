"""The page: what it says of checkpoints and recordings, and, in a headless browser, that a visitor gets it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import app
from cli import UserError
from inference import Prediction
from tests.conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
         "--use-fake-device-for-media-stream"]  # fmt: skip
LICENCE = "CC BY-NC-SA 4.0 ![](http://192.0.2.1/x.png) <b>*"  # another's checkpoint asks for no picture from elsewhere
SLOW = 60_000  # milliseconds to wait for, on a busy machine


@pytest.fixture(scope="module")
def runs(small_release, shared_cache, tmp_path_factory) -> Path:
    """Two checkpoints trained on a synthetic corpus; one of them claims to be of real speech."""
    folder = tmp_path_factory.mktemp("app") / "runs"
    env = {**os.environ, "IEMOCAP": str(small_release), "GLAM_CACHE": str(shared_cache), "GLAM_RUNS": str(folder)}
    words = "train.py --gpu -1 --model CNN_GAP --dataset all --epochs 1 --train_overlap 0 --save_model --quiet --seed 1"
    subprocess.run([sys.executable, *words.split()], cwd=ROOT, env=env, check=True, capture_output=True)
    (made_up,) = folder.rglob("checkpoint")
    real = folder / "real" / "checkpoint"
    shutil.copytree(made_up, real)
    config = json.loads((real / "config.json").read_text())
    config |= {"synthetic": False, "corpus": "Some & Corpus", "licence": LICENCE, "rule": "paper"}
    config["temperature"] = 0.01  # for its answers to be others
    (real / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def recording(small_release) -> Path:
    """One of EMO-DB where it is at hand, else a synthetic one; 1.8 s or longer."""
    real = Path(os.environ.get("EMODB", ROOT.parent / "shared" / "data" / "emodb" / "wav")) / "03a01Wa.wav"
    made_up = (file for file in sorted(small_release.rglob("Ses*.wav")) if soundfile.info(file).duration > 2)
    return real if real.is_file() else next(made_up)


def predicted(runs: Path, checkpoint: str, file: Path) -> dict:
    """What predict.py says."""
    words = [sys.executable, "predict.py", file, "--checkpoint", runs / checkpoint, "--json", "--gpu", "-1"]
    done = subprocess.run([str(word) for word in words], cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["utterances"][0]


# ---------------------------------------------------------------------------------------- without a browser


def test_checkpoints_are_found_those_of_real_speech_first(runs, capsys, tmp_path):
    found = app.find_checkpoints(runs)
    assert [config["synthetic"] for config in found.values()] == [False, True]
    real, made_up = found
    assert real == "real/checkpoint" and made_up.endswith("/1/checkpoint")
    shutil.copytree(runs / "real", tmp_path / "a")
    shutil.copytree(runs / "real", tmp_path / "b")
    (tmp_path / "a" / "checkpoint" / "config.json").write_text("{}")
    assert list(app.find_checkpoints(tmp_path)) == ["b/checkpoint"]
    assert re.search(r"warning: .*a/checkpoint/config\.json is not a checkpoint's", capsys.readouterr().err)
    assert list(app.find_checkpoints(tmp_path / "b" / "checkpoint")) == ["."]
    with pytest.raises(UserError, match=r"there is no checkpoint under .*: python train\.py --save_model makes one"):
        app.find_checkpoints(tmp_path / "none")


def test_a_checkpoint_is_described_with_licence_and_origin(runs):
    real, made_up = app.find_checkpoints(runs).values()
    assert app.title("x/checkpoint", made_up).startswith("SYNTHETIC: CNN_GAP on all, split 8:2, seed 1, epoch 1")
    assert not app.title("x", real).startswith("SYNTHETIC")
    assert "Classes: neutral, sad, angry, happy." in app.describe(real)
    assert "Licence of the training corpus: CC BY-NC-SA 4.0 &#33;&#91;&#93;(" in app.describe(real)
    assert "On the test utterances of Some &amp; Corpus: WA" in app.describe(real)
    assert "optimistic" in app.describe(real) and "SYNTHETIC" not in app.describe(real)
    assert "SYNTHETIC" in app.describe(made_up) and "optimistic" not in app.describe(made_up)


def test_a_checkpoint_is_told_with_its_fold_and_each_score(runs):
    (_, made_up) = app.find_checkpoints(runs).values()
    scores = {"test": {"WA": 61.24, "UA": 52.5, "macroF1": 3.0, "weightedF1": 4.0}}
    config = made_up | {"split": "speaker", "fold": 0, "scores": scores}
    assert "split speaker fold 0, seed 1, epoch 1 · x" in app.title("x/checkpoint", config)
    assert "WA 61.2 %, UA 52.5 % (rule last)" in app.describe(config)


def test_an_answer_says_how_likely_of_how_much_and_what_was_done():
    shares, times = np.array([0.25, 0.75]), np.arange(2.0)
    one = Prediction("a", ["<x>", "<y>"], shares, shares, times, times + 1, shares[None], 2.5, times >= 0, "cut: <")
    assert app.answer(one) == "## &lt;y&gt;\n75% likely, by 2 segments in 2.5 s. Cut: &lt;."


def test_the_page_is_of_this_machine_and_tells_nobody(monkeypatch, capsys):
    """Without Gradio: what it is asked for."""
    asked = {}
    themes = SimpleNamespace(Base=lambda **_: None)
    guard = SimpleNamespace(Middleware=lambda _, allowed_hosts: allowed_hosts, TrustedHostMiddleware=None)
    for name, module in (("", None), (".middleware", guard), (".middleware.trustedhost", guard)):
        monkeypatch.setitem(sys.modules, f"starlette{name}", module)
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(themes=themes))
    monkeypatch.setattr(app.cli, "need", lambda *_: None)
    page = SimpleNamespace(launch=lambda **how: asked.update(how), block_thread=lambda: None)
    monkeypatch.setattr(app, "make_page", lambda *_: page)
    wanted = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    for name in ("GRADIO_TEMP_DIR", *wanted):
        monkeypatch.setenv(name, "")  # for it to be as before afterwards
    page_of_all = "whoever reaches this machine can use the page"
    for words, said in (([], ""), (["--host", "0.0.0.0"], page_of_all), (["--host", "::1"], "")):
        monkeypatch.setattr(sys, "argv", ["app.py", *words])
        app.main()
        assert (asked["share"], asked["enable_monitoring"]) == (False, False)
        at = {"": "127.0.0.1", "::1": "[::1]"}.get(host := "".join(words[1:]), host)  # as Gradio takes it
        assert asked["server_name"] == at and asked["max_file_size"] == 100 * 2**20
        assert asked["app_kwargs"]["middleware"] == [["*"] if said else ["127.0.0.1", "localhost", "[::1]"]]
        assert {name: os.environ[name] for name in wanted} == wanted
        out, told = capsys.readouterr()
        assert out.startswith(f"http://{at}:7860 ") and said in told and bool(said) == bool(told)


def test_the_page_answers_by_the_checkpoint_that_is_chosen(runs, recording, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="needs Gradio: pip install -r requirements-app.txt")
    titles = []
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))  # as `main` sets it: Gradio's own may be another's
    monkeypatch.setattr("timeline.plot", lambda one, file, title: titles.append(title))
    page = app.make_page(runs, 1, 1, tmp_path)
    assert page.delete_cache == (3600, 3600)
    (respond,) = (each.fn for each in page.fns.values())
    likely = []
    for name, config in app.find_checkpoints(runs).items():
        about, words, shares, picture = respond(name, str(recording))
        one = app.recognise(runs / name, str(recording), max_minutes=1, max_mb=1)
        assert (about, words) == (app.describe(config), app.answer(one)) and shares.visible and picture.visible
        told = {each["label"]: each["confidence"] for each in shares.value["confidences"]}
        assert told == dict(zip(one.classes, map(float, one.probabilities), strict=True))
        assert titles.pop() == app.recogniser(runs / name).checkpoint.title
        likely.append(told)
        (tmp_path / "<b>.wav").write_text("Dear Sir or Madam")
        for file, said in ((None, app.INVITATION), (tmp_path / "<b>.wav", '<p class="refused">&lt;b&gt;.wav cannot')):
            about, words, shares, picture = respond(name, file and str(file))
            assert about == app.describe(config) and words.startswith(said)
            assert (shares.visible, picture.visible) == (False, False)
    assert likely[0] != likely[1]


def test_a_recording_gets_what_predict_gives_it(runs, recording):
    one = app.recognise(runs / "real" / "checkpoint", str(recording), max_minutes=1, max_mb=1)
    assert one.as_dict()["probabilities"] == pytest.approx(
        predicted(runs, "real", recording)["probabilities"], abs=1e-6
    )
    assert app.answer(one).startswith(f"## {one.label}\n") and recording.name == one.file


def test_what_cannot_be_used_is_refused_in_words_without_the_servers_folders(runs, tmp_path):
    silence = np.zeros(16000 * 61)
    soundfile.write(tmp_path / "long.wav", silence, 16000)
    soundfile.write(tmp_path / "none.wav", silence[:0], 16000)
    (tmp_path / "text.wav").write_text("Dear Sir or Madam")
    for name, limit, fault in (
        ("long.wav", 100, "it is longer than 1 min; cut it, or use predict.py"),
        ("long.wav", 1, "it has 1.9 MB and 1 are taken"),
        ("none.wav", 100, "holds no samples"),
        ("text.wav", 100, "cannot be decoded as audio"),
    ):
        with pytest.raises(UserError, match=f"^{name} cannot be used: .*{fault}") as error:
            app.recognise(runs / "real" / "checkpoint", str(tmp_path / name), max_minutes=1, max_mb=limit)
        assert str(tmp_path) not in str(error.value)


def test_a_damaged_checkpoint_is_not_the_recordings_fault(runs, recording, tmp_path, capsys):
    shutil.copytree(runs / "real", tmp_path / "broken")
    weights = tmp_path / "broken" / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"^this checkpoint is damaged: choose another$"):
        app.recognise(weights.parent, str(recording), max_minutes=1, max_mb=1)
    assert f"{weights} is not the file that config.json belongs to" in capsys.readouterr().err


def test_it_answers_this_machine_only_unless_told_otherwise():
    args = app.command_line().parse_args([])
    assert (args.host, args.max_minutes, args.max_mb) == ("127.0.0.1", 10, 100)


def test_flags_that_make_no_sense_are_told_in_words(command):
    for words, fault in ((("--max_minutes", 0), "must be greater than 0"), (("--port", 70000), "from 1 to 65535")):
        assert fault in command("app.py", *words, status=2).stderr


def test_without_gradio_it_says_what_to_install(runs):
    asks = "import sys, cli, app; sys.modules['gradio'] = None; sys.argv[1:] = []; cli.run_main(app.main)"
    done = subprocess.run([sys.executable, "-c", asks], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install -r requirements-app.txt" in done.stderr


# -------------------------------------------------------------------------------------------- in a browser


@contextmanager
def served(runs: Path, *flags: object):
    """The page's address; afterwards it has to stop in order and to leave nothing behind."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install -r requirements-app.txt")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = [sys.executable, "app.py", "--checkpoints", runs, "--port", port, *flags]
    scratch = runs.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(scratch)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(list(map(str, words)), cwd=ROOT, env=env, **pipes)
    try:
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port} "), process.communicate()
        yield line.split()[0]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode in (0, 130) and "Traceback" not in errors, errors
        assert list(scratch.iterdir()) == []
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(runs):
    with served(runs, "--max_minutes", 1, "--max_mb", 5) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("needs a browser: apt-get install chromium")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt"
    )
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    """A visitor who has opened the page; no request of theirs may have left the machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(SLOW)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#speech input[type=file]", state="attached")
    yield page
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
    page.close()


def upload(page, file: Path) -> None:
    page.set_input_files("#speech input[type=file]", str(file))


def shown_probabilities(page) -> dict[str, int]:
    words = page.inner_text("#probabilities").split()[1:]
    return {name: int(share.rstrip("%")) for name, share in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.browser
def test_upload_shows_class_probabilities_and_their_course(page, runs, recording, tmp_path):
    expected = predicted(runs, "real", recording)
    assert f"Licence of the training corpus: {LICENCE}." in page.inner_text("#about")
    upload(page, recording)
    page.wait_for_selector("#answer h2")
    assert page.inner_text("#answer h2") == expected["class"]
    shares = {name: round(100 * p) for name, p in expected["probabilities"].items()}
    assert shown_probabilities(page) == pytest.approx(shares, abs=1)
    page.wait_for_function("document.querySelector('#course img')?.naturalWidth > 1000")
    screenshot = tmp_path / "app.png"
    page.screenshot(path=screenshot, full_page=True)
    assert screenshot.stat().st_size > 30_000


@pytest.mark.browser
def test_another_checkpoint_is_chosen_and_says_that_it_is_synthetic(page, recording):
    upload(page, recording)
    page.wait_for_selector("#answer h2")
    page.click("#checkpoint input")
    page.click("ul[role=listbox] li:has-text('SYNTHETIC')")
    page.wait_for_selector("#about .synthetic")
    assert "made-up sounds: its answers mean nothing" in page.inner_text("#about")
    page.wait_for_selector("#answer h2")


@pytest.mark.browser
def test_refusals_are_sentences_and_the_page_goes_on(page, recording, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 61), 8000)
    (tmp_path / "text.wav").write_text("Dear Sir or Madam")
    for name, fault in (("text.wav", "cannot be decoded as audio"), ("long.wav", "longer than 1 min")):
        upload(page, tmp_path / name)
        page.wait_for_selector(f"#answer .refused:has-text('{name} cannot be used')")
        assert fault in page.inner_text("#answer") and not page.is_visible("#probabilities")
        page.click("#speech button[aria-label=Clear]")
        page.wait_for_selector("#answer:has-text('Record or upload speech.')")
    upload(page, recording)
    page.wait_for_selector("#answer h2")
    page.click("#speech button[aria-label=Clear]")
    page.wait_for_selector("#answer:has-text('Record or upload speech.')")
    assert not page.is_visible("#probabilities") and not page.is_visible("#course")


@pytest.mark.browser
def test_a_file_that_is_too_large_is_refused(page, tmp_path):
    soundfile.write(tmp_path / "large.wav", np.zeros(16000 * 200), 16000)  # 6.4 MB
    upload(page, tmp_path / "large.wav")
    page.wait_for_selector("text=/maximum.*size|too large|exceed/i")
    assert not page.is_visible("#probabilities")


@pytest.mark.browser
def test_the_microphone_is_heard(page):
    """Chromium's made-up microphone beeps."""
    page.click("#speech button[aria-label='Record audio']")
    page.click("#speech button:has-text('Record')")
    page.wait_for_timeout(2500)
    page.click("#speech button:has-text('Stop')")
    page.wait_for_selector("#answer h2")
    assert re.search(r"likely, by \d+ segments? in [1-9]\.\d s", page.inner_text("#answer"))


@pytest.mark.browser
def test_other_addresses_of_the_machine_get_no_answer(address):
    port = int(address.rsplit(":", 1)[1])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.browser
def test_a_site_whose_name_leads_to_this_machine_is_refused(address):
    port = int(address.rsplit(":", 1)[1])
    answers = {}
    for name in ("127.0.0.1", "localhost", "[::1]", "site.example"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/", headers={"Host": f"{name}:{port}"})
        answers[name] = connection.getresponse().status
    assert answers == {"127.0.0.1": 200, "localhost": 200, "[::1]": 200, "site.example": 400}


@pytest.mark.browser
def test_a_port_in_use_is_told_in_words(address, runs, command):
    port = address.rsplit(":", 1)[1]
    told = command("app.py", "--checkpoints", runs, "--port", port, status=2).stderr
    assert f"no page can be served at 127.0.0.1:{port}" in told and "--port" in told


@pytest.mark.browser
def test_an_uploaded_page_is_not_shown_as_ours(page, address):
    body = {"files": {"name": "x.html", "mimeType": "text/html", "buffer": b"<script>alert(1)</script>"}}
    (file,) = page.request.post(f"{address}/gradio_api/upload", multipart=body).json()
    served = page.request.get(f"{address}/gradio_api/file={file}")
    assert served.ok and served.headers["content-disposition"].startswith("attachment")
