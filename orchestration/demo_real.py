"""The same chain on real data: 154,000 texts and 1.5 million card payments, judged beside what others published."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table

from feature_repo.lake import day_of
from feature_repo.windows import SERVICES
from orchestration.approvals import Approvals
from orchestration.detectors import read_detectors
from orchestration.handbook_week import PUBLISHED, TESTED, Judgement, judge, judged_payments
from orchestration.importing import import_events, load_mapping
from orchestration.runs import materialize, run_detector
from orchestration.scoring import score_file
from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.story import MARK, SIGNERS, Story, approve, require, start_anew
from training import predictions
from training.metrics import Estimate, Sample, draw_replicates, estimate, replicate

MAPPINGS = Path(__file__).parent / "mappings"


@dataclass(frozen=True)
class Chapter:
    """A data set, by the name of its folder and its mapping, and the detector that learns from it."""

    data: str
    detector: str


@dataclass(frozen=True)
class LabelPrecision:
    """How well one label of the content detector ranks the texts for which it is known."""

    num_known: int
    num_violating: int
    average_precision: Estimate | None


CHAPTERS = (Chapter("content_mix", "content"), Chapter("card_fraud_sim", "payment_fraud"))


class NoData(FileNotFoundError):
    """The data sets are not in the folder that was named."""


def run_demo_real(data: Path) -> None:
    """Run the story in MEWS_HOME, from nothing, on the data sets of a folder."""
    settings, story = Settings.from_environment(), Story()
    for chapter in CHAPTERS:
        if not (data / chapter.data).is_dir():
            raise NoData(f"{data} has no folder {chapter.data}; MEWS_DATA names the folder of the data sets")
    start_anew(settings)
    desk = Approvals(settings)
    desk.introduce(SIGNERS)
    for chapter in CHAPTERS:
        _bring_in(settings, story, chapter, data=data)
        _release(settings, story, chapter, desk=desk)
    with story.stage("the deployed release scores the handbook's test week, as it was known at each payment"):
        week = _score_week(settings)
    _close(settings, story, _label_precision(settings), week=week)


def _bring_in(settings: Settings, story: Story, chapter: Chapter, *, data: Path) -> None:
    """From the publisher's files to validated events and the features of every moment that is trained or judged on."""
    mapping = load_mapping(MAPPINGS / f"{chapter.data}.yaml")
    with story.stage(f"{chapter.data}: its files become events and labels"):
        report = import_events(settings.lake, data / chapter.data, mapping)
    story.say(f"  {report.num_accepted:,} of {report.num_read:,} rows accepted")
    with story.stage(f"{chapter.data}: Great Expectations lets the good batches into the lake"):
        for table in (mapping.table, "labels"):
            days = settings.lake.days("inbox", table)
            require(materialize(settings, [f"lake/{table}"], first=days[0], last=days[-1]))
    with story.stage(f"{chapter.data}: features of every labelled moment"):
        service = SERVICES[read_detectors(settings.defs)[chapter.detector].spec.feature_service]
        first, last = _used_days(settings, mapping.table)
        require(materialize(settings, [f"features/{view}" for view in service.views], first=first, last=last))


def _used_days(settings: Settings, table: str) -> tuple[date, date]:
    """The first and the last day with an event that is trained or judged on."""
    with settings.lake.connect() as connection:
        query = (
            "SELECT min(event_us), max(event_us) FROM labels WHERE event_table = ? AND split IS DISTINCT FROM 'unused'"
        )
        first, last = connection.execute(query, [table]).fetchall()[0]
    return day_of(first), day_of(last)


def _release(settings: Settings, story: Story, chapter: Chapter, *, desk: Approvals) -> None:
    name = chapter.detector
    with story.stage(f"{name}: training set as it was known, training, evaluation, gate, sealed release"):
        require(run_detector(settings, name, until="release"))
    with story.stage(f"{name}: two people sign, the release is deployed"):
        approve(desk, name, read_detectors(settings.defs)[name].spec.policy)
        require(run_detector(settings, name, stages=["deployment"]))


def _score_week(settings: Settings) -> Judgement:
    """Ask the deployed release, as `mews score` does, about each payment that the handbook judges."""
    payments = judged_payments(settings.lake, TESTED)
    asked, answered = settings.home / "handbook_week.parquet", settings.home / "handbook_week_scored.parquet"
    pq.write_table(payments.drop_columns("is_fraud"), asked)
    score_file(settings, "payment_fraud", asked, output=answered, prefix=None)
    return judge(payments, np.array(pq.read_table(answered, columns=["p_fraud"])["p_fraud"]))


def _label_precision(settings: Settings) -> dict[str, LabelPrecision]:
    """Per label, on all rows of the publishers' test splits; none of them was trained on."""
    run_dir = shelf.latest(settings.runs / "content")
    stored = predictions.read(run_dir, read_detectors(settings.defs)["content"].spec)
    rows = np.isin(stored.splits, ("calibration", "test"))
    draws = draw_replicates(int(stored.entities.max()) + 1)
    found = {}
    for at, label in enumerate(stored.labels):
        known = np.flatnonzero(rows & (stored.verdicts[:, at] >= 0))
        is_violation = stored.verdicts[known, at] == 1
        scores = 1 / (1 + np.exp(-stored.logits[known, at]))
        sample = Sample(scores, is_violation, np.ones(len(known)), stored.entities[known])
        precision = estimate(replicate(sample, draws)["average_precision"])
        found[label] = LabelPrecision(len(known), int(is_violation.sum()), precision)
    return found


def _close(settings: Settings, story: Story, labels: dict[str, LabelPrecision], *, week: Judgement) -> None:
    story.console.print(_content_table(labels), _week_table(week))
    seconds, target = round(sum(story.seconds.values()), 1), settings.home / MARK
    figures = {
        "seconds": seconds,
        "stages": story.seconds,
        "content": {name: one.average_precision and one.average_precision.model_dump() for name, one in labels.items()},
        "handbook_week": week.to_dict(),
        "published": PUBLISHED,
    }
    target.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    cards = [shelf.latest(settings.runs / chapter.detector) / "card.html" for chapter in CHAPTERS]
    story.say(
        f"{seconds:.0f} s in all; figures in {target}. Next: read {' and '.join(map(str, cards))}, or "
        f"`MEWS_HOME={settings.home} mews up` and look at the runs in Dagster and the candidates in MLflow."
    )


def _content_table(labels: dict[str, LabelPrecision]) -> Table:
    table = Table("label", title="content_mix: average precision (AP) on the publishers' test splits")
    for column in ("known", "violating", "AP", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, one in labels.items():
        table.add_row(label, f"{one.num_known:,}", f"{one.num_violating:,}", *_interval(one.average_precision))
    return table


def _week_table(week: Judgement) -> Table:
    title = f"card_fraud_sim: the handbook's test week, {week.num_frauds:,} frauds in {week.num_payments:,} payments"
    table = Table("model", title=title)
    for column in ("AUC", "AP", "card precision@100"):
        table.add_column(column, justify="right")
    for name, figures in PUBLISHED.items():
        table.add_row(f"published: {name}", *(f"{figure:.3f}" for figure in figures))
    ours = (week.auc, week.average_precision, week.card_precision)
    table.add_row("payment_fraud, as released", *(_interval(one)[0] for one in ours))
    table.add_row("  95 % interval", *(_interval(one)[1] for one in ours), style="dim")
    return table


def _interval(found: Estimate | None) -> tuple[str, str]:
    return ("-", "") if found is None else (f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}")
