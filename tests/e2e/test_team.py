"""The whole loop with a detector that was just added, on PostgreSQL, Redis and an MLflow server with a login."""

from pathlib import Path

import psycopg
import pytest
import redis

from tests.e2e.loop import play, require_whole_loop

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(600)]


def test_the_loop_runs_on_the_servers_of_a_team(project: Path, team: dict[str, str]) -> None:
    figures = play(project, team, "team")

    home = Path(team["MEWS_HOME"])
    require_whole_loop(figures, home)
    assert not [path for path in home.glob("**/*.db") if path.parent.name != "quarantine"]
    with psycopg.connect(team["MLFLOW_BACKEND_STORE_URI"], host=team["PGHOST"], user=team["PGUSER"]) as connection:
        assert connection.execute("SELECT count(*) FROM model_versions WHERE name = 'spam'").fetchall() == [(2,)]
    assert redis.Redis(db=13).dbsize() > 0
