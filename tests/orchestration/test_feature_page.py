from pathlib import Path

from feature_repo.lake import Lake
from feature_repo.windows import VIEWS
from orchestration import feature_page
from orchestration.detectors import read_detectors
from orchestration.settings import DEFS
from tests.orchestration.conftest import FIRST

DETECTORS = {name: detector.spec for name, detector in read_detectors(DEFS).items()}


def test_every_feature_says_what_it_means_in_which_unit_and_who_uses_it() -> None:
    for view in VIEWS.values():
        for row in feature_page.rows(view, DETECTORS):
            assert all(row), row
    used = {row[0]: row[-1] for row in feature_page.rows(VIEWS["account_payments"], DETECTORS)}
    assert used["mean_amount_7d"] == "account_misuse, payment_fraud"


def test_the_page_holds_every_view_and_the_newest_plot(lake: Lake, tmp_path: Path) -> None:
    view, folder = VIEWS["account_profile"], tmp_path / "page"

    plot = feature_page.publish(lake, folder, view=view, day=FIRST, detectors=DETECTORS)

    assert plot.read_bytes().startswith(b"\x89PNG")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f"<h2>{name}</h2>" in page for name in VIEWS)
    assert f'src="account_profile/{FIRST}.png"' in page
