import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import SENSOR_NAME_TAG

from feature_repo.lake import Lake, start_us
from orchestration.defs.lake import lake as tables
from orchestration.settings import Settings
from orchestration.stages import news, shelf
from orchestration.validation import validate_batch
from tests.orchestration.conftest import FIRST, labels
from training.detector import DetectorSpec, Retrain

SPEC = DetectorSpec(
    name="payment_fraud",
    description="stolen cards",
    owners=[],
    policy="payments",
    events="payments",
    labels=["fraud"],
    feature_service="payment_v2",
    numbers=["amount"],
    retrain=Retrain(min_new_labels=15),
)


@dg.op
def work() -> None: ...


JOB = dg.GraphDefinition("job", node_defs=[work]).to_job()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def posts() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook that remembers what it was told."""
    received: list[dict[str, str]] = []

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


def tick(
    sensor: dg.SensorDefinition,
    settings: Settings,
    definitions: dg.Definitions | None = None,
    *,
    instance: dg.DagsterInstance | None = None,
) -> Any:
    resources = {"settings": settings}
    context = dg.build_sensor_context(
        resources=resources,
        instance=instance or dg.DagsterInstance.ephemeral(),
        sensor_name=sensor.name,
        definitions=dg.Definitions.merge(definitions or tables(), dg.Definitions(resources=resources)),
    )
    return sensor.evaluate_tick(context)


def test_a_batch_that_arrives_starts_the_ingestion_of_its_day_once(
    settings: Settings, arrive: Callable[..., None]
) -> None:
    sensor = news.arrivals("ingest")
    arrive(FIRST)
    arrive(FIRST + timedelta(days=3))

    [first, second] = tick(sensor, settings).run_requests
    [again, _] = tick(sensor, settings).run_requests

    assert [first.partition_key, second.partition_key] == ["2026-01-01", "2026-01-04"]
    assert first.run_key == again.run_key


def test_a_corrected_batch_starts_its_day_again(settings: Settings, arrive: Callable[..., None]) -> None:
    sensor = news.arrivals("ingest")
    arrive(FIRST)
    [before] = tick(sensor, settings).run_requests
    arrive(FIRST)

    [after] = tick(sensor, settings).run_requests

    assert before.run_key != after.run_key


def test_what_waits_in_the_inbox_is_asked_for_again_a_while_after_its_run_failed(
    settings: Settings, arrive: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor, instance = news.arrivals("ingest"), dg.DagsterInstance.ephemeral()
    arrive(FIRST)
    [first] = tick(sensor, settings, instance=instance).run_requests
    instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.FAILURE, tags=first.tags)

    [soon] = tick(sensor, settings, instance=instance).run_requests
    monkeypatch.setattr(news, "AGAIN_AFTER", timedelta(0))
    [later] = tick(sensor, settings, instance=instance).run_requests
    instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.STARTED, tags=later.tags)
    [while_it_runs] = tick(sensor, settings, instance=instance).run_requests

    assert soon.run_key == first.run_key != later.run_key == while_it_runs.run_key


def test_enough_newly_labelled_events_ask_for_one_new_candidate(settings: Settings, lake: Lake) -> None:
    sensor, run_keys = news.new_labels(SPEC), []
    manifest = json.dumps({"cutoff_us": start_us(FIRST + timedelta(days=1)) - 1})
    folder = shelf.new(settings.training_sets / SPEC.name, "first")
    (folder / "manifest.json").write_text(manifest)
    shelf.publish(folder)

    for number in range(4):
        day = FIRST + timedelta(days=number)
        lake.write("inbox", "labels", labels(day), day=day)
        validate_batch(lake, "labels", day, label_names={"fraud"})
        run_keys.append([request.run_key for request in tick(sensor, settings).run_requests or []])

    [third], [fourth] = run_keys[2:]
    assert run_keys[:2] == [[], []]
    assert third != fourth  # 20 and 30 of 15: what failed with the first 15 is tried again with the next
    instance = dg.DagsterInstance.ephemeral()
    instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.STARTED, tags={SENSOR_NAME_TAG: sensor.name})
    assert not tick(sensor, settings, instance=instance).run_requests


def test_a_detector_without_a_training_set_waits_for_its_first(settings: Settings) -> None:
    ticked = tick(news.new_labels(SPEC), settings)

    assert not ticked.run_requests
    assert "has no finished training_sets" in ticked.skip_message


def test_a_failed_run_tells_the_webhook_why_in_one_line(
    settings: Settings, posts: tuple[str, list[dict[str, str]]]
) -> None:
    url, received = posts

    @dg.op
    def train() -> None:
        raise ValueError("fit.devices is 0;\nit must be at least 1")

    @dg.job
    def nightly() -> None:
        train()

    instance = dg.DagsterInstance.ephemeral()
    result = nightly.execute_in_process(instance=instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"settings": Settings(home=settings.home, webhook_url=url)},
    ).for_run_failure()

    news.run_failure()(context)

    reason = "train: ValueError: fit.devices is 0; it must be at least 1"
    assert received == [{"text": f"nightly failed: {reason}", "run_id": result.run_id}]
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["why"] == reason


def test_a_webhook_that_is_no_address_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="MEWS_WEBHOOK_URL is 'file:///etc/passwd'"):
        news.tell("file:///etc/passwd", "text", "run")
