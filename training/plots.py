"""Draws what an approver looks at: one PNG per question, one panel per label; no text of any event is read."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from training.card_facts import held_at_once
from training.evaluation import MACRO, Confusion, Evaluation, Rates
from training.metrics import Floats, Sample
from training.predictions import Predictions
from training.thresholds import Threshold

_VIOLATION, _BENIGN, _LINE = "#d55e00", "#0072b2", "#555555"  # Okabe and Ito: told apart by colour-blind readers
_NUM_BINS = 15
_GAPS = {"wspace": 0.32, "hspace": 0.42}  # shares of a panel
Panel = Callable[[Axes, Sample, Threshold, Rates | None], None]


def draw(folder: Path, evaluation: Evaluation, *, test: Predictions, scores: Floats) -> list[Path]:
    """Write every plot; labels without a positive and a benign test row have no panel."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = {label: test.sample(label, scores) for label in test.labels}
    drawable = {label: sample for label, sample in samples.items() if 0 < sample.labels.sum() < len(sample.labels)}
    figures = {name: _grid(drawable, evaluation, panel) for name, panel in _PANELS.items()} if drawable else {}
    if evaluation.comparison is not None and evaluation.comparison.why is None:
        figures["champion"] = _differences(evaluation)
    if evaluation.attacks:
        figures["attacks"] = _attacks(evaluation)
    if evaluation.confusion is not None and len(evaluation.labels) > 1:
        figures["confusion"] = _confusion(evaluation.confusion)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    return [folder / f"{name}.png" for name in figures]


def _grid(samples: dict[str, Sample], evaluation: Evaluation, panel: Panel) -> Figure:
    num_columns = min(4, len(samples))
    num_rows = math.ceil(len(samples) / num_columns)
    width, height = 3.1 * num_columns + 0.4, 2.7 * num_rows + 0.2
    # Margins in inches: a layout that finds them itself draws every panel three times.
    margins = {"left": 0.7 / width, "right": 1 - 0.1 / width, "bottom": 0.55 / height, "top": 1 - 0.3 / height}
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(num_rows, num_columns, squeeze=False, gridspec_kw={**margins, **_GAPS}).ravel()
    for ax, (label, sample) in zip(axes, samples.items(), strict=False):
        ax.set_title(label, fontsize=10)
        panel(ax, sample, evaluation.thresholds[label], evaluation.labels[label].at_threshold)
        ax.tick_params(labelsize=8)
        ax.minorticks_off()
    for ax in axes[len(samples) :]:
        ax.axis("off")
    return figure


def _precision_recall(ax: Axes, sample: Sample, _: Threshold, rates: Rates | None) -> None:
    precision, recall, _at = precision_recall_curve(sample.labels, sample.scores, sample_weight=sample.weights)
    ax.step(recall, precision, where="post", color=_VIOLATION)
    if rates and rates.recall and rates.precision:
        ax.plot(rates.recall.value, rates.precision.value, "o", color=_LINE, label="released threshold")
        ax.legend(fontsize=7, loc="lower left")
    ax.axhline(np.average(sample.labels, weights=sample.weights), color=_LINE, linewidth=0.8, linestyle=":")
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))


def _calibration(ax: Axes, sample: Sample, _: Threshold, __: Rates | None) -> None:
    bins = np.minimum((sample.scores * _NUM_BINS).astype(int), _NUM_BINS - 1)
    weights = np.bincount(bins, sample.weights, _NUM_BINS)
    filled = weights > 0
    said = np.bincount(bins, sample.weights * sample.scores, _NUM_BINS)[filled] / weights[filled]
    true = np.bincount(bins, sample.weights * sample.labels, _NUM_BINS)[filled] / weights[filled]
    ax.plot([0, 1], [0, 1], color=_LINE, linewidth=0.8, linestyle=":")
    ax.scatter(said, true, s=10 + 90 * np.sqrt(weights[filled] / weights.sum()), color=_BENIGN)
    ax.set(xlabel="probability said", ylabel="share that was true", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _scores(ax: Axes, sample: Sample, chosen: Threshold, __: Rates | None) -> None:
    edges = np.linspace(0, 1, 41).tolist()
    for rows, color, name in ((~sample.labels, _BENIGN, "benign"), (sample.labels, _VIOLATION, "violation")):
        ax.hist(sample.scores[rows], edges, weights=sample.weights[rows], color=color, alpha=0.6, label=name)
    for _, one in chosen.parts:
        if one.threshold is not None:
            ax.axvline(one.threshold, color=_LINE, linewidth=1, linestyle="--")
    ax.set_yscale("log")
    ax.legend(fontsize=7, loc="upper center")
    ax.set(xlabel="probability", ylabel="events")


def _costs(ax: Axes, sample: Sample, _: Threshold, rates: Rates | None) -> None:
    """What a threshold finds, and what it costs legitimate users."""
    at = np.unique(np.quantile(sample.scores, np.linspace(0.5, 1, 200)))
    found, burden = (
        np.array([np.average(sample.scores[rows] >= t, weights=sample.weights[rows]) for t in at])
        for rows in (sample.labels, ~sample.labels)
    )
    ax.plot(10_000 * burden, 100 * found, color=_VIOLATION)
    if rates and rates.benign_fpr and rates.recall:
        ax.plot(10_000 * rates.benign_fpr.value, 100 * rates.recall.value, "o", color=_LINE)
    ax.set_xscale("symlog", linthresh=1)
    ax.set(xlabel="flagged of 10,000 benign", ylabel="found of 100 violations", ylim=(0, 102))


def _differences(evaluation: Evaluation) -> Figure:
    assert evaluation.comparison is not None
    compared = held_at_once(evaluation.comparison.differences)
    rows = [one for one in compared if one.metric == "average_precision"][::-1]
    figure = Figure(figsize=(7, 0.26 * len(rows) + 1.1), layout="constrained")
    ax = figure.subplots()
    for y, one in enumerate(rows):
        is_worse = one.difference.high < 0
        color = _VIOLATION if is_worse else _BENIGN
        ax.plot(
            [one.difference.low, one.difference.high], [y, y], color=color, linewidth=2 if one.label == MACRO else 1
        )
        ax.plot(one.difference.value, y, "o", color=color, markersize=4)
    names = [f"{one.label}, {one.column} {one.value}" if one.column else one.label for one in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    ax.axvline(0, color=_LINE, linewidth=0.8, linestyle=":")
    ax.set_xlabel("average precision, candidate minus champion (intervals that all keep at once)")
    return figure


def _attacks(evaluation: Evaluation) -> Figure:
    """Recall kept by technique and label, beside what becomes of the benign twins."""
    attacks = sorted(evaluation.attacks, key=lambda one: (not one.is_seen, one.technique))
    labels = [name for name in evaluation.labels if any(one.kept_by_label.get(name) is not None for one in attacks)]
    columns = [[one.recall_kept.value if one.recall_kept else None for one in attacks]]
    columns += [[one.kept_by_label.get(label) for one in attacks] for label in labels]
    shares = np.array(columns, dtype=float)
    twins = np.array([[10_000 * one.twin_fpr.value if one.twin_fpr else np.nan for one in attacks]])
    figure = Figure(figsize=(0.46 * len(attacks) + 2.4, 0.32 * len(columns) + 2.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[len(columns), 1])
    _heat(top, shares, rows=["any label", *labels], colors="RdYlBu", high=1.0, as_text=lambda v: f"{100 * v:.0f}")
    _heat(bottom, twins, rows=["twins flagged of 10,000"], colors="Oranges", high=1000, as_text=lambda v: f"{v:.0f}")
    names = [one.technique if one.is_seen else f"{one.technique} *" for one in attacks]
    bottom.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    top.set_title("recall kept, % of clean (* held out from training)", fontsize=10)
    return figure


def _confusion(confusion: Confusion) -> Figure:
    columns = list(next(iter(confusion.shares.values())))
    shares = np.array([[row[name] for name in columns] for row in confusion.shares.values()])
    rows = [f"{label} ({confusion.num_rows[label]})" for label in confusion.shares]
    figure = Figure(figsize=(0.55 * len(columns) + 2.6, 0.32 * len(rows) + 1.6), layout="constrained")
    ax = figure.subplots()
    _heat(ax, shares, rows=rows, colors="Blues", high=1.0, as_text=lambda v: f"{100 * v:.0f}")
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8)
    ax.set_title("truly (rows), flagged as (columns), %", fontsize=10)
    return figure


def _heat(
    ax: Axes, values: Floats, *, rows: list[str], colors: str, high: float, as_text: Callable[[float], str]
) -> None:
    """A heat map whose cells also say their value; an empty cell is one that could not be measured."""
    ax.imshow(values, cmap=colors, vmin=0, vmax=high, aspect="auto", alpha=0.75)
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            ax.text(x, y, as_text(float(value)), ha="center", va="center", fontsize=7)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)


_PANELS: dict[str, Panel] = {
    "precision_recall": _precision_recall,
    "calibration": _calibration,
    "scores": _scores,
    "costs": _costs,
}
