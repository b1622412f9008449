"""What a demo may forget."""

from pathlib import Path

import pytest

from orchestration.settings import Settings
from orchestration.story import HomeInUse, start_anew


def fill(home: Path, *names: str) -> None:
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("precious")


@pytest.mark.parametrize("name", ["lake/inbox/a.parquet", "ledger/ledger.jsonl", ".ssh/key", "thesis.tex"])
def test_a_home_that_no_demo_made_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)

    with pytest.raises(HomeInUse, match=rf"holds what no demo made \({Path(name).parts[0]}\); set MEWS_HOME"):
        start_anew(Settings(home=tmp_path))

    assert (tmp_path / name).read_text() == "precious"


def test_a_demo_forgets_the_one_before_it_and_keeps_what_was_measured(tmp_path: Path) -> None:
    fill(tmp_path, "home/bench/promises.json")

    start_anew(Settings(home=tmp_path / "home"))
    fill(tmp_path, "home/lake/a", "home/dagster/b", "home/mlflow.db")
    start_anew(Settings(home=tmp_path / "home"))

    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["bench", "demo.json"]
