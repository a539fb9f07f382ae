"""Figures from run folders, as PDF, PNG and SVG.

They can be read in print and by the colour-blind: colours are those of Okabe and Ito (2008) or of a scale with even
steps of lightness, and markers, line styles or numbers say the same as the colours.
"""

import copy
import io
import itertools
import shlex
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import calibration
import captions
import flags
import grouping
import metrics
import path
import recipes
import records
import render
import tables
from cli import UserError, warn_once
from files import atomic
from grouping import Group
from metrics import SCORE_NAMES, SCORES
from recipes import RULES
from records import Run
from seeds import read_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 2)), ":", (0, (1, 3)))
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "figures",
}
# fonts for scripts that matplotlib's DejaVu Sans lacks; those of them that the machine has are used
FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
         "Source Han Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
         "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari",
         "Noto Sans Bengali", "Noto Sans Thai")  # fmt: skip
MOST_PANELS = 6
DARK_INK_FROM = 46  # per cent: at this colour of cividis, black and white both have a contrast of at least 4.5


@dataclass
class Drawn:
    """A figure and the caption to be printed under it."""

    figure: "Figure"
    caption: str


def _figure(width: float, height: float, title: str, synthetic: bool) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(f"{title} — SYNTHETIC data" if synthetic else title, fontsize=11, x=0.01, ha="left")
    return figure


def _common(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the changed settings that all groups share; the caption says them once."""
    return {k: v for k, v in groups[0].changed.items() if all(k in g.changed and g.changed[k] == v for g in groups)}


def label(group: Group, groups: Sequence[Group]) -> str:
    """Return a group's name among `groups`: its model, and the changed settings that not all of them share."""
    own = {k: v for k, v in group.changed.items() if k not in _common(groups)}
    return group.model + (f" ({recipes.settings_text(own)})" if own else "")


def say_runs(groups: Sequence[Group], rule: bool = True) -> str:
    """Return the part of a caption that every figure has: corpus, split, rule (or that there is none), and n."""
    first, counts = groups[0], sorted({len(group.rounds) for group in groups})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    n += " seed" if counts == [1] else " seeds"
    tested = sorted({group.utterances for group in groups})
    folds = ", all folds of a seed put together" if rule else ", each fold a run"
    folds = folds if first.has_folds else ""
    corpus = first.dataset if first.corpus == first.dataset else f"{first.corpus}, {first.dataset}"
    epoch = f"rule {first.rule}: {RULES[first.rule]}" if rule else "every epoch is drawn, so no rule picks one"
    said = f"Corpus {corpus}; split {first.split}; {epoch}; "
    said += f"n = {n}{folds}, {' or '.join(tested)} test utterances a seed."
    said += f" Settings of all runs: {recipes.settings_text(_common(groups))}." if _common(groups) else ""
    if rule and first.rule == "paper" and first.first.has_validation:
        said += " " + " ".join(captions.say_unpublished({first.split}))
    return said + (" SYNTHETIC data: these say nothing about speech." if first.synthetic else "")


# ----------------------------------------------------------------------------------------------- confusion


def confusion(groups: Sequence[Group]) -> Drawn:
    """Draw confusion matrices side by side: per cent of the row, and counts added up over seeds."""
    columns = len(groups) if len(groups) <= 4 else 3
    rows = -(-len(groups) // columns)
    classes = len(groups[0].classes)
    side = max(2.5, 0.62 * classes + 0.6)
    figure = _figure(side * columns + 1.1, (side + 0.65) * rows + 0.4, "Confusion matrices", groups[0].synthetic)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axis, group) in enumerate(zip(axes, groups, strict=False)):
        counts = np.sum([r.confusion for r in group.rounds], axis=0)
        new = i % columns == 0 or group.classes != groups[i - 1].classes
        image = _matrix(axis, counts, group.classes, first=new)
        seeds = "1 seed" if len(group.rounds) == 1 else f"{len(group.rounds)} seeds"
        n = f"{seeds} of {group.utterances} utterances"
        axis.set_title(f"{chr(97 + i)}) {label(group, groups)}\n{n}", loc="left")
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    bar = figure.colorbar(image, ax=list(axes), shrink=0.8, pad=0.02)
    bar.set_label("per cent of the true class")
    bar.outline.set_visible(False)
    text = "Rows: the true class. Each cell has its per cent of the row and, in brackets, the count over all seeds."
    return Drawn(figure, f"{text} {say_runs(groups)}")


def _matrix(axis: "Axes", counts: NDArray[np.int64], classes: list[str], first: bool) -> Any:
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axis.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(percent):
        ink = "black" if value > DARK_INK_FROM else "white"
        text = f"{value:.1f}\n({counts[i, j]})" if counts[i].any() else "–"  # a class without test utterances
        axis.text(j, i, text, ha="center", va="center", color=ink, fontsize=7.5)
    axis.set_xticks(range(len(classes)), classes, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(classes)), classes if first else [""] * len(classes))
    axis.set_xlabel("predicted")
    axis.set_ylabel("true" if first else "")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return image


# -------------------------------------------------------------------------------------------------- curves


def curves(groups: Sequence[Group]) -> Drawn:
    """Draw training loss, test WA and test UA by epoch: the mean over runs and a band of one standard deviation."""
    figure = _figure(10.5, 3.7, "Loss and scores while training", groups[0].synthetic)
    axes = figure.subplots(1, 3)
    for axis, score, title in zip(
        axes, (None, "WA", "UA"), ("training loss", "test WA (%)", "test UA (%)"), strict=True
    ):
        for i, group in enumerate(groups):
            values = [[e["test"][score] if score else e["train_loss"] for e in run.epochs] for run in group.runs]
            _band(axis, np.array(values), i, label(group, groups))
        axis.set_title(title, loc="left")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", handlelength=3)
    text = "Lines: the mean over runs (seeds, and folds where the split has some); bands: one sample standard deviation"
    text += ", none for a single run." if any(len(group.runs) == 1 for group in groups) else "."
    if len({group.first.config["settings"]["alpha"] > 0 for group in groups}) > 1:
        text += (
            " Models with mixup have the loss of mixed labels, which cannot be compared with the loss of the others."
        )
    return Drawn(figure, f"{text} {say_runs(groups, rule=False)}")


def _band(axis: "Axes", values: NDArray[np.float64], i: int, name: str) -> None:
    """Draw one line with its band from `values` `(runs, E)`."""
    epochs, mean = np.arange(1, values.shape[1] + 1), values.mean(0)
    every = max(1, len(epochs) // 8)
    style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
    marks: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "markersize": 4, "markevery": (i % every, every)}
    axis.plot(epochs, mean, label=name, linewidth=1.4, **style, **marks)
    if len(values) > 1:
        sd = values.std(0, ddof=1)
        axis.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)


# --------------------------------------------------------------------------------------------------- alpha


def shared_seeds(groups: Sequence[Group]) -> list[Group]:
    """Return the groups with only the seeds that all have, to compare like with like; unchanged if there are none."""
    shared = set.intersection(*({each.seed for each in group.rounds} for group in groups))
    if not shared:
        return list(groups)
    found = [copy.copy(group) for group in groups]
    for group in found:
        group.rounds = [each for each in group.rounds if each.seed in shared]
    return found


def alpha(groups: Sequence[Group]) -> Drawn:
    """Draw the four scores against mixup's α, beside the published ones. Means are over the seeds that all values of α
    have; where there are none, over each value's own seeds."""
    groups = shared_seeds(groups)
    same = len({tuple(each.seed for each in group.rounds) for group in groups}) == 1
    figure = _figure(8.2, 5.6, "Scores against mixup's α", groups[0].synthetic)
    axes = figure.subplots(2, 2, sharex=True).ravel()
    at = [float(group.first.config["settings"]["alpha"]) for group in groups]
    several = max(len(group.rounds) for group in groups) > 1
    paper = [(a, scores) for a, group in zip(at, groups, strict=True) if (scores := tables.published_scores(group))]
    for i, (axis, score) in enumerate(zip(axes, SCORES, strict=True)):
        values = [group.scores()[:, i] for group in groups]
        sd = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values]
        bars: dict[str, Any] = {"capsize": 3, "linewidth": 1.4, "markersize": 5}
        if same and several:  # a line for each seed shows how little the slope of the mean may mean
            axis.plot(at, np.array(values), color="#aaaaaa", linewidth=0.7, zorder=0)
        axis.errorbar(at, [v.mean() for v in values], sd, fmt="o", color=COLOURS[0], label="ours", **bars)
        if paper:
            means, deviations = zip(*(scores[score] for _, scores in paper), strict=True)
            aside = [a + 0.04 for a, _ in paper]
            axis.errorbar(aside, means, deviations, fmt="s", color=COLOURS[1], mfc="white", label="published", **bars)
        axis.set_title(f"{SCORE_NAMES[score]} (%)", loc="left")
        axis.set_xticks(at, [f"{a:g}" for a in at], fontsize=8)
    for axis in axes[2:]:
        axis.set_xlabel("α")
    text = (
        "Mean and one sample standard deviation over seeds" if several else "One seed each, so that no spread is shown"
    )
    text += "; grey: each seed." if same and several else "."
    if paper:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        text += " Published values are drawn a little to the right."
    return Drawn(figure, f"{text} {groups[0].model}. {say_runs(groups)}")


# --------------------------------------------------------------------------------------------------- t-SNE


def hidden_means(run: Run) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the last layer's inputs, averaged over each test utterance's segments `(U, D)`, and the labels `(U,)`.

    The weights are those in the run's checkpoint/. Raises UserError where the corpus has changed since the training.
    """
    import torch

    import checkpoints
    import data
    import loops

    config = replace(recipes.from_settings(run.config["settings"]), device="cpu")
    loaded = data.load(config, skip_bad=run.config.get("n_bad", 0) > 0)
    if loaded.digest != run.corpus_digest:
        raise UserError(f"{run.folder} was trained on another version of {run.dataset}: run again with --save_model")
    index = {utterance.name: i for i, utterance in enumerate(loaded.corpus.utterances)}
    tested = np.array([index[name] for name in run.predictions("test").names.tolist()])
    model, test = checkpoints.load(run.folder).module, loaded.test
    means = []  # one (D,) for each utterance
    with torch.inference_mode():
        for i in tested:
            x = torch.from_numpy(np.array(test.x[test.starts[i] :][: test.counts[i], None]))  # (S, 1, F, T)
            hidden = [model.hidden(batch) for batch in x.split(loops.evaluation_batch(x))]
            means.append(torch.cat(hidden).flatten(1).mean(0))
    return torch.stack(means).numpy(), loaded.corpus.labels[tested]


def tsne(runs: Sequence[Run]) -> Drawn:
    """Draw t-SNE (van der Maaten and Hinton, 2008) of the last hidden layer's utterance means, a panel for each run."""
    columns = len(runs) if len(runs) < 4 else 2
    rows = -(-len(runs) // columns)
    title = "t-SNE of the last hidden layer"
    figure = _figure(3.6 * columns + 1.2, 3.3 * rows + 0.6, title, runs[0].synthetic)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axis, run) in enumerate(zip(axes, runs, strict=False)):
        hidden, labels = hidden_means(run)
        if not np.square(hidden - hidden[0]).any():  # no distance in float32: scikit-learn would kill the process
            same = "the last hidden layer of its weights is the same for all test utterances; name others with --model"
            raise UserError(f"{run.folder}: {same}")
        where = embed(hidden)
        for c, name in enumerate(run.config["classes"]):
            own = where[labels == c]
            # there are eight colours: the ninth class has the colour of the first, but another marker
            marker = MARKERS[(c + c // len(COLOURS)) % len(MARKERS)]
            style: dict[str, Any] = {"color": COLOURS[c % len(COLOURS)], "marker": marker}
            axis.scatter(own[:, 0], own[:, 1], s=16, alpha=0.8, linewidths=0.3, edgecolors="white", label=name, **style)
        axis.set_title(f"{chr(97 + i)}) {run.model}", loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(True)
        axis.spines[:].set_color("#bbbbbb")
    for axis in axes[len(runs) :]:
        axis.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", markerscale=1.6)
    return Drawn(figure, _say_tsne(runs))


def embed(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return t-SNE's points in the plane `(U, 2)`, the same at every call."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(hidden) - 1) / 3)
    with threadpool_limits(1):  # sums are then the same everywhere; and more threads would cost more than they save
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(hidden)


def _say_tsne(runs: Sequence[Run]) -> str:
    weights = []
    for run in runs:
        saved = records.read_record(run.folder / "checkpoint" / "config.json")
        weights.append(f"{run.model} seed {run.seed}, epoch {saved.get('epoch')} (rule {saved.get('rule')})")
    first, counts = runs[0], sorted({run.n_test for run in runs})
    said = f"Each point: the mean over a test utterance's segments. Weights: {'; '.join(weights)}. "
    said += f"Corpus {first.config['corpus']}, {first.dataset}; split {first.split}; "
    said += f"n = {' or '.join(map(str, counts))} utterances. Perplexity 30, or a third of n where that is less. "
    said += "Distances between clusters mean little."
    return said + (" SYNTHETIC data: these say nothing about speech." if first.synthetic else "")


def train_command(model: str, like: Run, settings: dict[str, Any]) -> str:
    """Return the command that trains `model` with `settings` on data and machine of `like`, and keeps the weights."""
    own = like.config["settings"]
    words = ["python", "train.py", "--model", model, "--dataset", own["dataset"], "--split", own["split"]]
    if own["test_dataset"]:
        words += ["--test", own["test_dataset"]]
    words += ["--seed", str(like.seed), *([] if like.fold is None else ["--fold", str(like.fold)])]
    return shlex.join([*words, *flags.train_flags(settings), *_place_flags([like]), "--save_model"])


def _place_flags(like: Sequence[Run]) -> list[str]:
    """Return the flags of train.py for training on the same kind of machine as most of `like`, into their folder."""
    root = like[0].folder.parents[4]
    elsewhere = ["--runs", str(root)] if root != path.RUNS.absolute() else []
    return [*flags.train_flags(grouping.machine_settings(like)), *elsewhere]


def runs_to_show(chosen: Sequence[Run], models: Sequence[str] | None, settings: dict[str, Any]) -> list[Run]:
    """Return one run with a checkpoint for each model, all of one seed and fold where that is possible.

    Raises UserError where a model has none; it names the commands that train it with `--save_model`.
    """
    wanted = list(models or tables.COMPARED.values())
    lists = {model: [run for run in chosen if run.model == model] for model in wanted}
    saved = {
        model: [r for r in own if (r.folder / "checkpoint" / "config.json").is_file()] for model, own in lists.items()
    }
    if lacking := [model for model in wanted if not saved[model]]:
        commands, first = [], read_seeds()[0]  # the seed whose weights scripts/all_tables keeps
        for model in lacking:
            of_first = (run for run in lists[model] if run.seed == first)
            like = next(of_first, next(iter(lists[model]), None))
            changed = like.changed if like else tables.resolve(model, settings)
            commands.append(train_command(model, like or chosen[0], changed))
        text = f"no weights were kept of {', '.join(lacking)}; train with --save_model, or name others with --model"
        raise UserError("\n  ".join([f"{text}:", *commands]))
    shared = set.intersection(*({(run.seed, run.fold) for run in own} for own in saved.values()))
    pick = min(shared, key=lambda key: (key[0], key[1] or 0)) if shared else None
    return [next((r for r in own if (r.seed, r.fold) == pick), own[0]) for own in saved.values()]


# --------------------------------------------------------------------------------------------- reliability


def reliability_panel(axis: "Axes", labels: NDArray, lines: dict[str, NDArray]) -> None:
    """Draw accuracy against confidence in 15 bins: a line for each of the logits `(U, C)` in `lines` and, in grey, the
    share of utterances in each bin of the first line. A single run has too few utterances, so `lines` pool all runs."""
    axis.plot([0, 1], [0, 1], color="#777777", linewidth=0.8, linestyle=":", label="perfect")
    for i, (name, logits) in enumerate(lines.items()):
        counts, confidence, accuracy = metrics.confidence_bins(metrics.softmax(logits), labels)
        if i == 0:
            middle, share = (np.arange(len(counts)) + 0.5) / len(counts), counts / counts.sum()
            axis.bar(middle, share, width=0.9 / len(counts), color="#dddddd", label="share of utterances", zorder=0)
        full = counts > 0
        style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": LINES[i], "markersize": 4.5}
        text = f"{name}: ECE {metrics.ece(logits, labels):.1f} %"
        axis.plot(confidence[full], accuracy[full], clip_on=False, label=text, linewidth=1.4, **style)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    axis.set_xlabel("confidence")
    axis.set_ylabel("accuracy")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=7.5, frameon=False)


def reliability(groups: Sequence[Group]) -> Drawn:
    """Draw reliability diagrams side by side (Guo et al., 2017). Where there is a validation part, a second line has
    the logits of each run divided by a temperature, which is fitted on that part."""
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = _figure(3.7 * columns + 0.3, 4.1 * rows, "Reliability of probabilities", groups[0].synthetic)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    for i, (axis, group) in enumerate(zip(axes, groups, strict=False)):
        labels: list[NDArray] = []
        lines: dict[str, list[NDArray]] = {}
        for run in group.runs:
            epoch, test = run.pick(group.rule), run.predictions("test")
            labels.append(test.labels)
            lines.setdefault("as trained", []).append(test.logits[epoch])
            if run.has_validation:
                val = run.predictions("val")
                temperature = calibration.fit_temperature(val.logits[epoch], val.labels)
                lines.setdefault("with temperature", []).append(test.logits[epoch] / np.float64(temperature))
        reliability_panel(axis, np.concatenate(labels), {name: np.concatenate(each) for name, each in lines.items()})
        axis.set_title(f"{chr(97 + i)}) {label(group, groups)}, n = {len(group.rounds)}", loc="left")
    text = "Accuracy against confidence of all runs' test utterances, in 15 bins; grey: the share of these in a bin. "
    text += "ECE: expected calibration error of the same utterances; where these are few, it is above 0 by chance. "
    if groups[0].first.has_validation:
        text += "The temperature is fitted on the validation utterances of each run. "
    return Drawn(figure, text + say_runs(groups))


# ----------------------------------------------------------------------------------------- from runs to files


def one_view(chosen: Sequence[Run]) -> list[Run]:
    """Return the runs of one dataset, split and corpus. Of several datasets or splits, impro or 8:2 is taken.

    Raises UserError where `chosen` has several of them, but not this one.
    """
    left = list(chosen)
    for flag, usual in (("dataset", "impro"), ("split", "8:2")):
        there = sorted({getattr(run, flag) for run in left})
        if len(there) > 1 and usual not in there:
            raise UserError(f"--{flag}: a figure shows one; name it: {', '.join(there)}")
        left = [run for run in left if getattr(run, flag) == (usual if len(there) > 1 else there[0])]
    return grouping.choose_corpus(left)


def as_published(chosen: Sequence[Run], settings: dict[str, Any]) -> list[Run]:
    """Return each model's runs as published but for `settings`; if it has none, those with the fewest changes."""
    found = []
    for model in dict.fromkeys(run.model for run in chosen):
        own = [run for run in chosen if run.model == model]
        kept = [run for run in own if run.changed == tables.resolve(model, settings)]
        if not kept:
            least = min(len(run.changed) for run in own)
            kept = [run for run in own if len(run.changed) == least]
        _warn_of_left_out(run for run in own if run not in kept)
        found += kept
    return found


def _warn_of_left_out(runs: Iterable[Run]) -> None:
    """Warn that a figure leaves out these runs of one model, and which settings they have."""
    others = {recipes.settings_text(run.changed) or "the recipe's": run.model for run in runs}
    if others:
        left = f"{next(iter(others.values()))}: runs with other settings are left out ({'; '.join(sorted(others))})"
        warn_once(f"{left}; --set SETTING=VALUE picks some")


def complete_groups(runs: Iterable[Run], rule: str | None) -> list[Group]:
    """Return the groups in which at least one seed has all its folds, in the order of the tables. Raises UserError."""
    order = [*tables.COMPARED.values(), *tables.ABLATED.values()]
    groups = [group for group in grouping.group_by_setting(runs, rule) if group.rounds]
    if not groups:
        raise UserError("no seed has all its folds yet; `python report.py` shows which are missing")
    for group in groups:
        _ = [r.confusion for r in group.rounds]  # a broken record is found now, not while drawing
    return sorted(groups, key=lambda group: order.index(group.model) if group.model in order else len(order))


def alpha_groups(runs: Sequence[Run], rule: str | None, settings: dict[str, Any]) -> list[Group]:
    """Return a group for each α that GLAM, or else the first run's model, was trained with. Raises UserError."""
    first = next((run for run in runs if run.model == "GLAM"), runs[0])
    same = [run for run in runs if run.model == first.model]
    values = {run.config["settings"]["alpha"] for run in same}
    asked = bool(settings)
    if not asked:  # as in the other figures, take the settings with the fewest changes
        settings = min(({k: v for k, v in run.changed.items() if k != "alpha"} for run in same), key=len)
    wanted = [tables.resolve(first.model, {**settings, "alpha": alpha}) for alpha in sorted(values)]
    if not asked:
        _warn_of_left_out(run for run in same if run.changed not in wanted)
    own = [[run for run in same if run.changed == changed] for changed in wanted]
    groups = [group for found in own if found for group in grouping.group_by_setting(found, rule) if group.rounds]
    if len(groups) < 2:
        words = ["python", "sweep.py", "--models", first.model, "--datasets", first.config["settings"]["dataset"]]
        words += ["--splits", records.trained_as(first.split), "--vary", f"alpha={','.join(map(str, tables.ALPHAS))}"]
        words += [*flags.train_flags(settings), *_place_flags([*itertools.chain(*own)] or same)]
        raise UserError(
            f"--figure alpha: {first.dataset} has no two values of {first.model}'s α with these settings (--set names "
            f"others); `{shlex.join(words)}` trains them"
        )
    _ = [r.confusion for group in groups for r in group.rounds]  # a broken record is found now, not while drawing
    return groups


def make(name: str, chosen: list[Run], args: Namespace) -> list[Path]:
    """Draw a figure of the chosen runs and write it as PDF and PNG. Raises UserError."""
    if args.output and args.output.suffix.lower() in (".png", ".pdf", ".svg", ".html", ".md", ".csv", ".tex"):
        raise UserError(f"--output {args.output}: a figure goes into a folder, as PDF and PNG; name one")
    view = one_view(chosen)
    first = view[0]
    if name == "tsne":
        with style():
            drawn = tsne(runs_to_show(as_published(view, args.set), args.model, args.set))
    else:
        drawn = records.leaving_out_broken(lambda usable: _draw(name, usable, args.rule, args.set), view)
    rule = [args.rule or first.own_rule] if name in ("confusion", "alpha", "reliability") else []
    stem = "-".join([name, first.dataset, first.split.replace(":", "-"), *rule])
    return save(drawn, (args.output or path.ROOT / "results" / "figures") / stem)


def _draw(name: str, runs: list[Run], rule: str | None, settings: dict[str, Any]) -> Drawn:
    if not runs:
        raise UserError("every run that these flags select is broken")
    if name == "alpha":
        groups = alpha_groups(runs, rule, settings)
    else:
        groups = complete_groups(as_published(runs, settings), rule)
        if len(groups) > MOST_PANELS:
            names = ", ".join(label(group, groups) for group in groups)
            raise UserError(
                f"--figure {name}: at most {MOST_PANELS} can be told apart; name some with --model: {names}"
            )
    with style():
        return FIGURES[name](groups)


@contextmanager
def style(settings: dict[Any, Any] = STYLE) -> Iterator[None]:
    """Set matplotlib to these settings and to those of FONTS that the machine has."""
    from matplotlib import font_manager, rc_context

    there = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(font for font in FONTS if font in there)]
    with rc_context({"font.family": fonts, "text.parse_math": False, **settings}):  # a $ in a name begins no formula
        yield


def _bytes(figure: "Figure", kind: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)  # undated: equal runs give equal files
    with style():
        figure.savefig(buffer, format=kind, dpi=200, facecolor="white", metadata=dates)
    if kind == "png":  # drawings need no more than 256 colours, which take a third of the space
        pixels = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        pixels.save(buffer := io.BytesIO(), "png", optimize=True, dpi=(200, 200))
    return buffer.getvalue()


def save(drawn: Drawn, stem: Path) -> list[Path]:
    """Write a figure with its caption as PDF and PNG, and return the files."""
    width = int(drawn.figure.get_figwidth() * 17.8)
    text = "\n".join(textwrap.wrap(drawn.caption, width))
    drawn.figure.set_figheight(drawn.figure.get_figheight() + 0.14 * (text.count("\n") + 2))
    with style():
        drawn.figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color="#333333")
    written = []
    for kind in ("pdf", "png"):
        file = stem.with_name(f"{stem.name}.{kind}")
        with atomic(file) as temporary:
            temporary.write_bytes(_bytes(drawn.figure, kind))
        written.append(file)
    return written


def images(names: Iterable[str], rows: Sequence[tables.Row]) -> list[render.Image]:
    """Return a table's figures for an HTML page, for each dataset, split and rule; several where one cannot show all
    rows."""
    found = []
    views = dict.fromkeys((r.spec.dataset, r.spec.split, r.spec.rule) for r in rows)
    for name, view in itertools.product(names, views):
        own = [r.counted for r in rows if (r.spec.dataset, r.spec.split, r.spec.rule) == view and r.counted]
        if name == "alpha":
            shown = [own] if len(own) > 1 else []  # one curve shows all values
        else:
            shown = [own[i : i + MOST_PANELS] for i in range(0, len(own), MOST_PANELS)]
        for groups in shown:
            with style():
                drawn = FIGURES[name](groups)
            found.append(render.Image(drawn.caption, _bytes(drawn.figure, "svg")))
    return found


FIGURES: dict[str, Callable[[Any], Drawn]] = {
    "confusion": confusion,
    "tsne": tsne,
    "curves": curves,
    "alpha": alpha,
    "reliability": reliability,
}
