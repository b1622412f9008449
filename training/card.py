"""Writes the evaluation card, which an approver reads in two minutes: Markdown, and one self-contained HTML page."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from training.detector import DetectorSpec
from training.evaluation import MACRO, Difference, Evaluation, SliceEvaluation
from training.gate import Verdict
from training.metrics import Estimate

_NUM_WORST_SLICES = 10
CAPTIONS = {
    "costs": "What each threshold finds and what it costs; the dot is the released threshold",
    "precision_recall": "Precision and recall; the dotted line is the share of violations",
    "calibration": "Probabilities said against what was true; on the line is honest, larger dots hold more events",
    "scores": "Scores of violations and of benign events; the dashed line is the released threshold",
    "champion": "Candidate minus champion; orange is shown to be worse",
}


def write(run_dir: Path, spec: DetectorSpec, *, evaluation: Evaluation, verdict: Verdict) -> None:
    """Write card.md and card.html of a run whose plots are drawn."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    )
    templates.filters |= {"estimate": estimate_text, "number": number_text, "signed": signed_text, "day": day_text}
    facts = facts_of(spec, evaluation, verdict)
    plots = {name: run_dir / "plots" / f"{name}.png" for name in CAPTIONS}
    for suffix, plot in (("md", _as_path), ("html", _as_data)):
        shown = {CAPTIONS[name]: plot(path) for name, path in plots.items() if path.exists()}
        page = templates.get_template(f"card.{suffix}.j2").render(plots=shown, **facts)
        (run_dir / f"card.{suffix}").write_text(page, encoding="utf-8")


def facts_of(spec: DetectorSpec, evaluation: Evaluation, verdict: Verdict) -> dict[str, Any]:
    """What both templates show."""
    return {
        "spec": spec,
        "evaluation": evaluation,
        "verdict": verdict,
        "costs": [sentence for label in spec.labels for sentence in _cost(evaluation, label)],
        "better": [_sentence(one) for one in _shown(evaluation) if one.difference.low > 0],
        "worse": [_sentence(one) for one in _shown(evaluation) if one.difference.high < 0],
        "macro_difference": next((one for one in _shown(evaluation) if one.label == MACRO), None),
        "worst_slices": _worst_slices(evaluation),
    }


def estimate_text(found: Estimate | None) -> str:
    """A value with its interval."""
    return f"{number_text(found.value)} ({number_text(found.low)} to {number_text(found.high)})" if found else "–"


def number_text(value: float | None) -> str:
    """Three decimals; a small rate keeps two digits."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def signed_text(found: Estimate) -> str:
    """A difference with its interval."""
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def day_text(moment_us: int) -> str:
    """The UTC day of a moment."""
    return datetime.fromtimestamp(moment_us / 1e6, UTC).date().isoformat()


def _cost(evaluation: Evaluation, label: str) -> list[str]:
    rates = evaluation.labels[label].at_threshold
    if rates is None or rates.benign_fpr is None:
        return []
    burden = rates.benign_fpr
    numbers = [round(10_000 * rate) for rate in (burden.value, burden.low, burden.high)]
    found = f"; it finds {round(100 * rates.recall.value)} of 100 violations" if rates.recall else ""
    return [f"{label}: of 10,000 benign events {numbers[0]} are flagged ({numbers[1]} to {numbers[2]}){found}."]


def _shown(evaluation: Evaluation) -> list[Difference]:
    """Differences as "more is better": a lower false-positive rate is turned around."""
    differences = evaluation.comparison.differences if evaluation.comparison else []
    return [_turned(one) if one.metric == "benign_fpr" else one for one in differences]


def _turned(one: Difference) -> Difference:
    turned = Estimate(value=-one.difference.value, low=-one.difference.high, high=-one.difference.low)
    return one.model_copy(update={"difference": turned})


def _sentence(one: Difference) -> str:
    where = f" where {one.column} is {one.value}" if one.column else ""
    metric = one.metric.replace("_", " ").replace("1pct fpr", "1 % benign FPR").replace("fpr", "FPR")
    change = f"{number_text(one.champion)} to {number_text(one.candidate)}"
    return f"{one.label}{where}: {metric} {change}, {signed_text(one.difference)}"


def _worst_slices(evaluation: Evaluation) -> list[SliceEvaluation]:
    """The slices that lie furthest below their label's own average precision."""

    def below(one: SliceEvaluation) -> float:
        whole = evaluation.labels[one.label].average_precision
        assert one.average_precision is not None
        assert whole is not None
        return one.average_precision.value - whole.value

    return sorted((one for one in evaluation.slices if one.average_precision), key=below)[:_NUM_WORST_SLICES]


def _as_path(path: Path) -> str:
    return f"plots/{path.name}"


def _as_data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
