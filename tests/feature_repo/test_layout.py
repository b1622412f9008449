"""What the service writes and reads without Feast is what Feast itself writes and reads."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bytes, String
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import layout
from feature_repo.facts import Slot
from feature_repo.states import Asked, Move, States, open_states
from tests.feature_repo.online_stores import REDIS, kind, project, states

__all__ = ["kind", "project", "states"]
VIEW = "account_activity"
COLUMNS = ((VIEW, layout.STATE), (VIEW, layout.SEEN))
AT_US = 1_700_006_400_000_000


@given(st.text(max_size=80))
def test_keys_and_fields_are_those_of_feast(text: str) -> None:
    key = EntityKey(join_keys=["account_id"], entity_values=[Value(string_val=text)])

    ours = layout.entity_key_prefix("account_id") + layout.entity_key_suffix(text) + b"mews"

    assert ours == _redis_key("mews", key)
    assert layout.redis_field(text, "state") == _mmh3(f"{text}_state:state")


@given(st.binary(max_size=40_000))
def test_values_are_those_of_feast(content: bytes) -> None:
    value = layout.to_value(content)

    assert value == Value(bytes_val=content).SerializeToString()
    assert layout.from_value(value) == content


@given(st.integers(1, 2**31))
def test_timestamps_are_those_of_feast(seconds: int) -> None:
    assert layout.to_timestamp(seconds * 1_000_000) == Timestamp(seconds=seconds).SerializeToString()


@pytest.fixture
def feast(kind: str, project: str, states: States, tmp_path: Path) -> FeatureStore:
    """Feast over the same store, with one state view applied."""
    online = {"type": "redis", "connection_string": REDIS}
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(tmp_path / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store=online if kind == "redis" else {"type": "sqlite", "path": str(tmp_path / "feast" / "online.db")},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    account = Entity(name="account_id", join_keys=["account_id"], value_type=ValueType.STRING)
    columns = [Field(name="account_id", dtype=String), *(Field(name=name, dtype=Bytes) for _, name in COLUMNS)]
    source = FileSource(name="rows", path=str(tmp_path / "rows.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name=layout.state_view(VIEW), entities=[account], ttl=timedelta(days=1), schema=columns, source=source
    )
    store.apply([account, view])
    return store


def test_feast_reads_what_we_moved(feast: FeatureStore, states: States) -> None:
    states.move([Move(Slot(VIEW, "a"), b"", b"body", b"seen", [], AT_US)])

    names = [f"{layout.state_view(VIEW)}:{column}" for _, column in COLUMNS]
    answer = feast.get_online_features(features=names, entity_rows=[{"account_id": "a"}], full_feature_names=False)

    state, seen = (answer.to_dict()[column][0] for _, column in COLUMNS)
    assert (state[:-8], seen) == (b"body", b"seen")
    table = feast.get_feature_view(layout.state_view(VIEW))
    key = EntityKey(join_keys=["account_id"], entity_values=[Value(string_val="a")])
    ((at, _),) = feast._get_provider().online_read(feast.config, table, [key], ["state"])
    assert at == datetime.fromtimestamp(AT_US / 1e6, UTC)


def test_we_read_what_feast_wrote(feast: FeatureStore, states: States) -> None:
    table = feast.get_feature_view(layout.state_view(VIEW))
    key = EntityKey(join_keys=["account_id"], entity_values=[Value(string_val="a")])
    values = {"state": Value(bytes_val=b"body12345678"), "seen": Value(bytes_val=b"seen")}
    now = datetime.now(UTC)
    feast._get_provider().online_write_batch(feast.config, table, [(key, values, now, now)], None)

    (found,) = states.read([Asked("account_id", "a", COLUMNS)])
    done = states.move([Move(Slot(VIEW, "a"), b"12345678", b"moved", b"", [], AT_US)])

    assert found == [b"body12345678", b"seen"]
    assert done == [True]
    assert states.read([Asked("account_id", "a", COLUMNS[:1])])[0][0][:-8] == b"moved"


def test_feast_and_we_create_the_same_table(feast: FeatureStore, kind: str, project: str, tmp_path: Path) -> None:
    if kind == "redis":
        pytest.skip("Redis has no tables")
    ours = open_states(tmp_path / "ours", deadline_s=5, project=project)

    ours.keys("account_id")

    database = Path("feast", "online.db")
    assert columns_of(tmp_path / "ours" / database, project) == columns_of(tmp_path / database, project)


def columns_of(path: Path, project: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        return connection.execute(f'PRAGMA table_info("{layout.table(project, VIEW)}")').fetchall()
