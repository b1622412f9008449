import random
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from feature_repo import offline
from feature_repo.compute import stamped
from feature_repo.lake import DAY_US, Lake, day_of
from feature_repo.store import open_store
from feature_repo.view import DAY, HOUR
from feature_repo.windows import SERVICES, VIEWS
from tests.feature_repo.records import START

SERVICE = "payment_v2"
ENTITIES = ["account_id", "merchant_id", "card_id"]
STEPS = [0, 1, HOUR, DAY, 2 * DAY, 2 * DAY + 1, 5 * DAY]  # TTL is two days: moments meet its edge


def _write_rows(lake: Lake, generator: random.Random) -> None:
    """Feature rows of few entities: several of one moment, some added by late facts, some nulls."""
    for view in (VIEWS[name] for name in SERVICES[SERVICE].views):
        moments = {(f"x{generator.randrange(3)}", START + generator.choice(STEPS)) for _ in range(20)}
        created = {(e, us, us + later) for e, us in moments for later in (0, generator.choice([HOUR, 3 * DAY]))}
        rows = [
            {view.entity: e, "event_us": us, "created_us": at}
            | {f.name: {"int": n, "float": n / 3 if n % 4 else None, "str": f"s{n}"}[f.dtype] for f in view.features}
            for n, (e, us, at) in enumerate(sorted(created))
        ]
        types = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
        schema = pa.schema(
            {view.entity: pa.string(), "event_us": pa.int64(), "created_us": pa.int64()}
            | {f.name: types[f.dtype] for f in view.features}
        )
        for day in {day_of(row["event_us"]) for row in rows}:
            today = [row for row in rows if day_of(row["event_us"]) == day]
            lake.write("features", view.name, stamped(pa.Table.from_pylist(today, schema=schema)), day=day)


@pytest.mark.filterwarnings("ignore:fetch_arrow_table.. is deprecated")  # in Feast's own path, through ibis
def test_training_sets_equal_those_of_feasts_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(3)
    _write_rows(Lake(tmp_path / "lake"), generator)
    asked = pd.DataFrame(
        [
            {
                "event_id": f"e{n}",
                **{key: generator.choice(["x0", "x1", "x2", "nobody", None]) for key in ENTITIES},
                "event_timestamp": datetime.fromtimestamp((START + generator.choice(STEPS) + offset) / 1e6, UTC),
            }
            for n, offset in enumerate([0, HOUR, DAY, 2 * DAY, 3 * DAY, DAY_US - 1] * 20)
        ]
    )
    store = open_store(tmp_path)

    def answer(only_created: bool) -> pd.DataFrame:
        service = store.get_feature_service(SERVICE)
        job = store.get_historical_features(asked, service, filter_by_created_timestamp=only_created)
        frame = job.to_df().sort_values("event_id", ignore_index=True)
        return frame.astype(object).where(frame.notna(), None)

    ours = [answer(only_created) for only_created in (True, False)]
    monkeypatch.setattr(offline, "_is_ours", lambda *_: False)
    theirs = [answer(only_created) for only_created in (True, False)]

    for mine, feasts in zip(ours, theirs, strict=True):
        assert list(mine.columns) == list(feasts.columns)
        assert mine.to_dict("records") == feasts.to_dict("records")
    assert ours[0].to_dict("records") != ours[1].to_dict("records")


def test_a_view_for_which_nothing_was_computed_reads_as_missing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    moment = datetime.fromtimestamp(START / 1e6, UTC)
    asked = pd.DataFrame([{"event_id": "e1", **dict.fromkeys(ENTITIES, "x0"), "event_timestamp": moment}])

    job = store.get_historical_features(asked, store.get_feature_service(SERVICE), filter_by_created_timestamp=True)

    [row] = job.to_arrow().to_pylist()
    names = [f.name for view in SERVICES[SERVICE].views for f in VIEWS[view].features]
    assert [row[name] for name in names] == [None] * len(names)
