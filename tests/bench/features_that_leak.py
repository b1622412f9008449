"""What the leak detectors find of twelve planted leaks, and what they say about clean sets."""

from copy import deepcopy
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from feature_repo import leaks
from feature_repo.compute import compute_days
from feature_repo.lake import Lake
from feature_repo.store import open_store
from feature_repo.tables import EVENT_TABLES
from feature_repo.training_set import build
from feature_repo.windows import SERVICES
from orchestration.detectors import read_detectors
from orchestration.importing import import_events, load_mapping
from orchestration.settings import DEFS
from orchestration.world.scale import Scale
from orchestration.world.world import World
from tests.bench.harness import DATA, IS_SMALL
from tests.feature_repo import plants

_FEW_DAYS_UNTIL = datetime(2018, 7, 9)  # noqa: DTZ001  # as in the file
_MAPPING = DEFS.parent / "mappings" / "card_fraud_sim.yaml"


def figures() -> dict[str, int]:
    """The two figures."""
    with TemporaryDirectory() as folder:
        found = found_of_12(Path(folder))
    with TemporaryDirectory() as folder:
        alarms = alarms_on_the_world(Path(folder))
    with TemporaryDirectory() as folder:
        alarms += alarms_on_payments(Path(folder))
    return {"leaks_found_of_12": found, "leak_false_alarms": len(alarms)}


def found_of_12(root: Path) -> int:
    """How many plants are reported with their column and kind."""
    made, num_found = plants.clean(root / "lake"), 0
    for plant, kind, column in plants.PLANTS.values():
        planted = plants.Set(made.lake, made.rows.copy(), deepcopy(made.manifest))
        plant(planted)
        reported = leaks.find(planted.lake, planted.write(root / "set"))
        num_found += (kind, column) in {(leak.kind, leak.column) for leak in reported}
        plants.log_decisions(made)  # as it was
    return num_found


def alarms_on_the_world(root: Path) -> list[leaks.Leak]:
    """What is said about the three training sets of a month of the simulated service."""
    scale = Scale(seed=7, num_accounts=800 if IS_SMALL else 4_000, num_days=30, start=date(2026, 1, 1))
    lake, world = Lake(root / "lake"), World(scale)
    world.generate(lake)
    (root / "lake" / "inbox").rename(root / "lake" / "events")
    compute_days(lake, world.days()[0], world.days()[-1])
    return [leak for name in read_detectors(DEFS) for leak in _alarms(root, lake, name)]


def alarms_on_payments(root: Path) -> list[leaks.Leak]:
    """What is said about the payments of the fraud handbook."""
    lake, source = Lake(root / "lake"), DATA / "card_fraud_sim"
    if IS_SMALL:
        month, source = source / "transactions-2018-07.parquet", root / "days.parquet"
        pq.write_table(pq.read_table(month, filters=[("TX_DATETIME", "<", _FEW_DAYS_UNTIL)]), source)
    import_events(lake, source, load_mapping(_MAPPING))
    (root / "lake" / "inbox").rename(root / "lake" / "events")
    days = sorted({day for table in EVENT_TABLES for day in lake.days("events", table)})
    compute_days(lake, days[0], days[-1], views=SERVICES["payment_v2"].views)
    return _alarms(root, lake, "payment_fraud")


def _alarms(root: Path, lake: Lake, name: str) -> list[leaks.Leak]:
    spec = read_detectors(DEFS)[name].spec
    out = root / "sets" / name
    build(lake, open_store(root), events=spec.events, labels=spec.labels, feature_service=spec.feature_service, out=out)
    return leaks.find(lake, out)
