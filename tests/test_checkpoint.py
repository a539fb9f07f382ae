"""Checkpoints: what train.py writes is read back whole, and what is not a checkpoint is refused with a sentence."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_checkpoints import CLASSES, make_checkpoint
from safetensors.torch import load_file, save_file

import calibration
import checkpoints
import data
import loops
import metrics
import models
import recipes
import records
import train
from cli import UserError
from files import digest_file
from models.layers import Classifier

SMALL: dict[str, Any] = {"n_mfcc": 12, "segment_length": 0.6, "train_overlap": 0.0, "test_overlap": 0.3}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any use of a socket fails."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint. Read only: copy it to change it."""
    return make_checkpoint(tmp_path_factory.mktemp("made") / "checkpoint", "MACNN", validation=True, **SMALL)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def change(folder: Path, **values: Any) -> None:
    """Change fields of config.json; `weights` follows model.safetensors."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"weights": digest_file(folder / "model.safetensors"), **values}
    (folder / "config.json").write_text(json.dumps(config))


def refused(folder: Path, *words: str) -> str:
    """The sentence with which a folder is refused; it names the folder."""
    with pytest.raises(UserError) as caught:
        checkpoints.load(folder)
    text = str(caught.value)
    assert str(folder) in text and all(word in text for word in words), text
    return text


def test_of_epochs_that_score_the_same_the_weights_are_those_of_the_picked_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = metrics.scores
    monkeypatch.setattr(metrics, "scores", lambda *given: {**scores(*given), "WA": 50.0, "UA": 50.0})
    for seed in range(1, 6):
        config = recipes.config_for("CNN_GAP", split="8:1:1", epochs=5, seed=seed, learning_rate=0.01)
        folder = train.train(config, save_model="validation", quiet=True)
        assert folder is not None
        val = records.read_run(folder).predictions("val")
        losses = [metrics.cross_entropy(logits, val.labels) for logits in val.logits]
        if (picked := int(np.argmin(losses))) not in (0, 4):
            break
    checkpoint = checkpoints.load(folder)
    assert 0 < picked < 4 and checkpoint.config["epoch"] == picked + 1  # neither the first nor the last of equals
    d = data.load(config)
    rows = data.SPLITS["8:1:1"](d.corpus.utterances, config.seed).val
    logits = loops.evaluate(checkpoint.module, loops.make_part(d.test, rows, d.corpus.labels, "cpu"), config)
    np.testing.assert_allclose(logits, val.logits[picked], atol=1e-4)
    assert np.abs(logits - val.logits[0]).max() > 1e-2


def test_a_training_run_writes_everything(here: Path, no_network: None) -> None:
    config = recipes.config_for("MACNN", split="8:1:1", epochs=2)
    folder = train.train(config, save_model="validation", quiet=True)
    assert folder is not None
    assert sorted(f.name for f in (folder / "checkpoint").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    run, saved = (json.loads((folder / part / "config.json").read_text()) for part in ("", "checkpoint"))
    assert {k: saved[k] for k in run} == run
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert saved["rule"] == "validation" and saved["scores"] == epochs[saved["epoch"] - 1]
    val = records.read_run(folder).predictions("val")
    fitted = calibration.fit_temperature(val.logits[saved["epoch"] - 1], val.labels)
    assert saved["temperature"] == pytest.approx(fitted, abs=1e-6)
    assert f"{run['n_val']} validation utterances" in saved["temperature_note"]
    network = models.from_pretrained(folder)
    assert not network.training
    fresh = models.create_model("MACNN", tuple(run["shape"]))
    assert load_file(folder / "checkpoint" / "model.safetensors").keys() == fresh.state_dict().keys()
    assert not list((folder / "checkpoint").glob(".*"))


def test_validation_that_recognises_everything_makes_nothing_certain(tmp_path: Path, monkeypatch) -> None:
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *given: save(*given[:-1], (9 * np.eye(4), np.arange(4))))
    loaded = checkpoints.load(make_checkpoint(tmp_path / "c", "MACNN", validation=True))
    assert loaded.temperature is not None and 0.9 < loaded.temperature <= 1
    assert "4 validation utterances of epoch 3" in loaded.config["temperature_note"]


def test_a_split_without_validation_has_no_temperature(here: Path) -> None:
    folder = train.train(recipes.config_for("MACNN", epochs=1), save_model="paper", quiet=True)
    assert folder is not None
    loaded = checkpoints.load(folder)
    assert loaded.temperature is None and "no validation part" in loaded.config["temperature_note"]
    assert "optimistic" in (folder / "checkpoint" / "README.md").read_text()


def test_weights_of_another_rule_are_replaced_with_a_word(here: Path, capsys: pytest.CaptureFixture) -> None:
    config = recipes.config_for("MACNN", epochs=1)
    train.train(config, quiet=True)
    folder = train.train(config, save_model="last", quiet=True)
    told = capsys.readouterr().err
    assert f"{folder} is trained again for the weights of --save_model last\n" in told
    train.train(config, save_model="paper", quiet=True)
    assert "of --save_model paper, which replace those of the rule last" in capsys.readouterr().err
    train.train(config, save_model="paper", quiet=True)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", models.list_models())
def test_every_model_comes_back(name: str, tmp_path: Path, no_network: None) -> None:
    folder = make_checkpoint(tmp_path / "c", name, classes=["a", "b", "c", "d", "e", "f"], **SMALL)
    loaded = checkpoints.load(folder)
    network, stored = loaded.module, load_file(folder / "model.safetensors")
    assert not network.training and network.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[key]) for key, value in network.state_dict().items())
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, *loaded.config["shape"])).shape == (2, 6)


def test_neither_saving_nor_loading_draws_a_random_number(made: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    loaded = checkpoints.load(made)
    checkpoints.save(tmp_path / "c", loaded.module, loaded.config, "last", loaded.config["scores"])
    assert torch.equal(before, torch.get_rng_state())


def test_saving_again_replaces(made: Path, tmp_path: Path) -> None:
    loaded = checkpoints.load(made)
    for epoch in (1, 2):
        with torch.no_grad():
            loaded.module.fc.bias += 1
        record = loaded.config["scores"] | {"epoch": epoch}
        checkpoints.save(tmp_path / "c", loaded.module, loaded.config, "last", record)
    again = checkpoints.load(tmp_path / "c")
    assert again.config["epoch"] == 2 and torch.equal(again.module.fc.bias, loaded.module.fc.bias)
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_the_hubs_own_call_reads_it(made: Path, tmp_path: Path, no_network: None) -> None:
    loaded = checkpoints.Checkpoint.from_pretrained(made)
    assert isinstance(loaded, PyTorchModelHubMixin) and loaded.classes == CLASSES
    loaded.save_pretrained(tmp_path / "again")
    assert digest_file(tmp_path / "again" / "model.safetensors") == loaded.config["weights"]
    assert checkpoints.load(tmp_path / "again").config == loaded.config


def test_the_model_card(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", rule="paper", alpha=0.3)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit" and card.data.pipeline_tag == "audio-classification"
    assert {"synthetic", "rule-paper", "glam"} <= set(card.data.tags)
    for words in (
        "SYNTHETIC",
        "optimistic",
        "alpha=0.3",
        "predict.py",
        "none needed",
        "the split 8:2 has no validation part",
    ):
        assert words in card.text, words
    real = ModelCard.load(make_checkpoint(tmp_path / "r", synthetic=False) / "README.md")
    assert (card.data.license_name, real.data.license_name) == (None, "synthetic-terms")
    assert real.data.license == "other" and "SYNTHETIC" not in real.text and "optimistic" not in real.text
    config = {**json.loads((folder / "config.json").read_text()), "synthetic": False, "corpus": "EMO-DB"}
    tags = ModelCard(checkpoints.model_card(config)).data.tags
    assert tags == ["speech-emotion-recognition", "glam", "emo-db", "rule-paper"]


def test_the_numbers_of_a_model_card(made: Path) -> None:
    config = checkpoints.load(made).config
    settings = {**config["settings"], "segment_length": 0.6, "train_overlap": 0.1, "test_overlap": 0.3}
    test, val = (dict(zip(metrics.SCORES, numbers, strict=True)) for numbers in ((1, 2, 3, 4), (5, 6, 7, 8)))
    told = {"fold": 6, "seed": 77, "epoch": 9, "n_test": 40, "n_val": 30, "temperature": 1.25, "settings": settings,
            "changed": {"classes": ["sad", "angry"], "alpha": 1.0}}  # fmt: skip
    card = checkpoints.model_card({**config, **told, "rule": "validation", "scores": {"test": test, "val": val}})
    assert metrics.SCORES == ("WA", "UA", "macroF1", "weightedF1")
    for line in (
        "| part | utterances | WA | UA | macro F1 | weighted F1 |\n|---|---|---|---|---|---|",
        "| test | 40 | 1.00 | 2.00 | 3.00 | 4.00 |",
        "| validation | 30 | 5.00 | 6.00 | 7.00 | 8.00 |",
    ):
        assert f"\n{line}\n" in card
    rows, frames = config["shape"]
    for words in (
        f"- Feature: mfcc, {rows} x {frames}; segments",
        f"features (B, 1, {rows}, {frames}) to logits\n(B, 4), in the order neutral, sad, angry, happy.",
        "Recognises neutral, sad, angry, happy in speech",
        "Corpus: synthetic, dataset `demo`; split `8:1:1`, fold 6, seed 77",
        "Weights of epoch 9, chosen by the rule `validation`",
        "from segments of 0.6 s",
        "segments overlap by 0.3 s",
        "recipe MACNN: alpha=1, classes=sad,angry\n",
        "probabilities: 1.25, fitted on the 40 validation utterances of epoch 3\n",
    ):
        assert words in card
    for rule, marked in (("paper", True), ("validation", False), ("last", False)):
        text = checkpoints.model_card({**config, "rule": rule})
        assert (f"`{rule}`: **{recipes.RULES[rule]}**" in text) == marked


def test_a_hub_name_needs_online(no_network: None) -> None:
    with pytest.raises(UserError, match="no such folder"):
        checkpoints.load("somebody/something")


def test_online_downloads_two_files_and_checks_them(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo_id: str, filename: str, **_: Any) -> str:
        asked.append((repo_id, filename))
        return str(copy / filename)

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    assert checkpoints.load("somebody/something", online=True).classes == CLASSES
    assert asked == [("somebody/something", "config.json"), ("somebody/something", "model.safetensors")]
    change(copy, corpus="a\x1b[2J")
    with pytest.raises(UserError, match=r"^somebody/something/config\.json is not a checkpoint's: 'corpus' has char"):
        checkpoints.load("somebody/something", online=True)


def test_of_the_hub_the_weights_are_those_of_the_revision_asked_for(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"revision": "v2", "cache_dir": "here", "force_download": True, "local_files_only": True, "token": "t"}
    asked = []

    def download(repo_id: str, filename: str, **more: Any) -> str:
        asked.append(given.items() <= more.items())
        return str(made / filename)

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    assert checkpoints.Checkpoint.from_pretrained("somebody/something", **given).classes == CLASSES
    assert asked == [True, True]


def test_online_a_run_folder_that_is_here_is_read(made: Path, tmp_path: Path, no_network: None) -> None:
    shutil.copytree(made, tmp_path / "run" / "checkpoint")
    assert checkpoints.load(tmp_path / "run", online=True).classes == CLASSES


def test_online_failures_are_sentences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", unreachable)
    for name in ("somebody/something", "../../no such/folder", str(tmp_path / "missing")):
        with pytest.raises(UserError, match="Hugging Face"):
            checkpoints.load(name, online=True)


def test_pickles_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, "it needs model.safetensors")


def test_folders_that_are_no_checkpoint(tmp_path: Path, copy: Path) -> None:
    refused(tmp_path / "missing", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is not a checkpoint")
    (copy / "config.json").write_bytes(b" " * (2**24 + 1))
    refused(copy, "16 MiB")


def test_weights_that_are_not_its_own(made: Path, copy: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "APCNN", **SMALL)
    shutil.copy(other / "model.safetensors", copy)
    refused(copy, "model.safetensors", "damaged")
    change(copy)
    refused(copy, "does not hold the weights of a MACNN")
    save_file({**load_file(made / "model.safetensors"), "more": torch.ones(1)}, copy / "model.safetensors")
    change(copy)
    refused(copy, "more differs", "if the model's code has changed since, train again")


def test_weights_that_are_not_numbers(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["fc.bias"][0] = torch.nan
    save_file(weights, copy / "model.safetensors")
    change(copy)
    refused(copy, "not finite")


def test_a_shape_that_would_fill_the_memory_or_is_no_whole_number(copy: Path) -> None:
    shape = json.loads((copy / "config.json").read_text())["shape"]
    change(copy, classes=[f"c{i}" for i in range(1000)])
    refused(copy, "does not hold the weights")
    change(copy, classes=CLASSES, shape=[100_000, 100_000])
    refused(copy, "'shape'")
    change(copy, classes=CLASSES, shape=[float(n) for n in shape])
    refused(copy, "'shape'")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rule": "best"}, "'rule' is none of paper, validation, last"),
        ({"temperature": 1e-4}, "'temperature' is out of range"),
        ({"temperature": 1001}, "'temperature' is out of range"),
        ({"classes": ["sad"]}, "'classes' are not"),
        ({"classes": ["sad", "angry", "sad", "happy"]}, "'classes' are not"),
        ({"classes": ["sad", "angry", "", "happy"]}, "'classes' are not"),
        ({"classes": ["sad", "angry", "a\x1b[2J", "happy"]}, "'classes' are not"),
        ({"classes": ["sad", "angry", "a" * 101, "happy"]}, "'classes' are not"),
        ({"corpus": "a\nb"}, "'corpus' has characters"),
        ({"dataset": "a\x1b[2J"}, "'dataset' has characters"),
        ({"temperature_note": "a\x1b[2J"}, "'temperature_note' has characters"),
        ({"init": "MACNN"}, "'init' has no title"),
        ({"init": {}}, "'init' has no title"),
        ({"init": {"title": "a\x1b[2J"}}, "'init' has no title that can be printed"),
        ({"seed": True}, "'seed' is wrong"),
        ({"scores": {"test": dict.fromkeys(metrics.SCORES, "50")}}, "'scores' lacks the scores of the test part"),
        ({"scores": {"test": dict.fromkeys(metrics.SCORES, 10**400)}}, "'scores' lacks the scores of the test part"),
        ({"scores": {"test": {"WA": 50.0, "UA": 50.0, "macroF1": 50.0}}}, "'scores' lacks the scores of the test part"),
    ],
)
def test_values_that_no_run_writes(values: dict[str, Any], said: str, copy: Path) -> None:
    change(copy, **values)
    refused(copy, "config.json is not a checkpoint's", said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("happy", "glad", "none of exc, hap, hap+exc"),
        ("n_mfcc", 129, "wrong"),
        ("segment_length", 121, "wrong"),
        ("head", 0, "wrong"),
        ("attn_hidden", 4097, "wrong"),
    ],
)
def test_settings_that_no_run_has(name: str, value: Any, said: str, copy: Path) -> None:
    settings = json.loads((copy / "config.json").read_text())["settings"]
    change(copy, settings={**settings, name: value})
    refused(copy, f"the setting {name!r} is {said}")


def test_segments_too_short_for_the_network(copy: Path) -> None:
    settings = json.loads((copy / "config.json").read_text())["settings"]
    change(copy, settings={**settings, "segment_length": 0.05, "test_overlap": 0}, shape=[12, 2])
    refused(copy, "config.json is not a checkpoint's", "too small")


def test_values_at_their_limits_are_read(copy: Path) -> None:
    """A network may recognise every test utterance, or none."""
    for score in (0, 100.0):
        change(copy, scores={"test": dict.fromkeys(metrics.SCORES, score)}, classes=["sad", "angry", "a" * 100, "b"])
        assert checkpoints.load(copy).config["scores"]["test"]["WA"] == score


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=6), inside, max_size=4),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        *checkpoints.FIELDS,
        "init",
        *(f"settings.{name}" for name in checkpoints.SETTINGS),
        "module",
        "config",
        "self",
        "model_id",
    ]
)


def test_weights_that_are_replaced_while_they_are_read_are_refused(tmp_path: Path, monkeypatch) -> None:
    folder, other = (make_checkpoint(tmp_path / name, "CNN_GAP") for name in ("a", "b"))
    weights, real = "model.safetensors", checkpoints.load_file
    save_file({name: value + 1 for name, value in load_file(other / weights).items()}, other / weights)

    def replaced(file: Path, *given: Any) -> Any:
        shutil.copy(other / weights, folder / weights)
        return real(file, *given)

    monkeypatch.setattr(checkpoints, "load_file", replaced)
    with pytest.raises(UserError, match="it is being replaced, or damaged; try again, or copy the folder again"):
        checkpoints.load(folder)


FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load_or_refuse(folder: Path, *sentences: str) -> None:
    """Load a folder, or see it refused with one of these."""
    try:
        checkpoints.load(folder)
    except UserError as error:
        assert str(folder) in str(error) and any(sentence in str(error) for sentence in sentences), error


@FUZZ
@given(key=KEYS, value=JSON)
def test_any_value_anywhere_in_config(key: str, value: Any, made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "c", dirs_exist_ok=True))
    config = json.loads((made / "config.json").read_text())
    where, _, name = key.rpartition(".")
    (config[where] if where else config)[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    load_or_refuse(folder, "is not a checkpoint's", "is not the file that", "does not hold the weights")


@FUZZ
@given(contents=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_config(contents: bytes, made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "c", dirs_exist_ok=True))
    (folder / "config.json").write_bytes(contents)
    with pytest.raises(UserError, match=r"config\.json"):
        checkpoints.load(folder)


@FUZZ
@given(data=st.data())
def test_any_bytes_as_weights(data: st.DataObject, made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "c", dirs_exist_ok=True))
    whole = bytearray((made / "model.safetensors").read_bytes())
    if data.draw(st.booleans(), "cut"):
        whole = whole[: data.draw(st.integers(0, len(whole)), "length")]
    for _ in range(data.draw(st.integers(0, 4), "flips")):
        if whole:
            whole[data.draw(st.integers(0, min(len(whole), 3000) - 1), "where")] ^= data.draw(
                st.integers(1, 255), "bits"
            )
    (folder / "model.safetensors").write_bytes(whole)
    change(folder)
    load_or_refuse(folder, "does not hold the weights", "not finite", "(SafetensorError")


def test_a_damaged_configuration_is_not_to_be_deleted(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "cut"))
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes()[:100])
    with pytest.raises(UserError, match=r"config\.json cannot be read as JSON .*; copy the checkpoint's whole folder"):
        checkpoints.load(folder)


def test_tied_weights_are_saved_under_both_names_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of one's own may use a tensor twice."""
    monkeypatch.setattr(models, "_classes", dict(models._classes))
    monkeypatch.setattr(models, "_names", dict(models._names))

    @models.register("Tied")
    class Tied(Classifier):
        def __init__(self, shape: tuple[int, int], num_classes: int = 4):
            super().__init__()
            self.a, self.b = (torch.nn.Linear(shape[0], shape[0]) for _ in range(2))
            self.b.weight = self.a.weight
            self.fc = torch.nn.Linear(shape[0], num_classes)

        def hidden(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x.mean((1, 3))))

    folder = make_checkpoint(tmp_path / "tied", "Tied")
    saved = load_file(folder / "model.safetensors")
    assert torch.equal(saved["a.weight"], saved["b.weight"])
    module = checkpoints.load(folder).module
    assert not module.training and torch.equal(module.state_dict()["a.weight"], saved["a.weight"])
