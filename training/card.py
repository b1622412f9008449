"""Writes the evaluation card, which an approver reads in two minutes: Markdown, and one self-contained HTML page."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from training.card_facts import facts_of
from training.detector import DetectorSpec
from training.evaluation import Evaluation
from training.gate import Verdict
from training.metrics import Estimate

CAPTIONS = {
    "champion": "Candidate minus champion; orange is shown to be worse",
    "costs": "What each threshold finds and what it costs; the dot is what is released",
    "attacks": "What of the clean recall each attack leaves, and what it does to benign twins",
    "confusion": "Which label a violation is taken for at the released thresholds",
    "calibration": "Probabilities said against what was true; on the line is honest, larger dots hold more events",
    "precision_recall": "Precision and recall; the dotted line is the share of violations",
    "scores": "Scores of violations and of benign events; dashed is what is released, segment by segment",
}
_MARKUP = re.compile(r"[\\`*|#<>~\[\]]")  # not the underscore, which means nothing inside a word


def write(run_dir: Path, spec: DetectorSpec, *, evaluation: Evaluation, verdict: Verdict) -> None:
    """Write card.md and card.html of a run whose plots are drawn."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    )
    texts = {"estimate": estimate_text, "number": number_text, "percent": percent_text, "per_10k": per_10k_text}
    templates.filters |= texts | {"signed": signed_text, "day": day_text, "place": place, "escaped": escaped}
    facts = facts_of(spec, evaluation, verdict)
    plots = {name: run_dir / "plots" / f"{name}.png" for name in CAPTIONS}
    for suffix, plot in (("md", _as_path), ("html", _as_data)):
        shown = {name: {"caption": CAPTIONS[name], "source": plot(p)} for name, p in plots.items() if p.exists()}
        page = templates.get_template(f"card.{suffix}.j2").render(plots=shown, **facts)
        (run_dir / f"card.{suffix}").write_text(page, encoding="utf-8")


def estimate_text(found: Estimate | None) -> str:
    """A value with its interval."""
    return f"{number_text(found.value)} ({number_text(found.low)} to {number_text(found.high)})" if found else "–"


def number_text(value: float | None) -> str:
    """Three decimals; a small rate keeps two digits."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def percent_text(found: Estimate | float | None) -> str:
    """A share in per cent, with its interval where it has one."""
    if found is None:
        return "–"
    if isinstance(found, Estimate):
        return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"{100 * found:.1f} %"


def per_10k_text(found: Estimate | None) -> str:
    """A share as a count of 10,000, with its interval."""
    if found is None:
        return "–"
    value, low, high = (round(10_000 * rate) for rate in (found.value, found.low, found.high))
    return f"{value:,} ({low:,} to {high:,})"


def signed_text(found: Estimate) -> str:
    """A difference with its interval."""
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def day_text(moment_us: int) -> str:
    """The UTC day of a moment."""
    return datetime.fromtimestamp(moment_us / 1e6, UTC).date().isoformat()


def escaped(text: str) -> str:
    """What data or a file named, on one line and without the signs that mean something in Markdown."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def place(value: float, *, end: float = 1.0) -> str:
    """Where a value stands on a bar that ends at `end`, as a percentage for CSS."""
    return f"{100 * min(1.0, max(0.0, value / end)):.1f}%"


def _as_path(path: Path) -> str:
    return f"plots/{path.name}"


def _as_data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
