"""What `mews up` starts in each profile, and that killing any of it leaves nothing stuck."""

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli, stack
from orchestration.child import Process
from orchestration.process_tree import kill_marked, marked
from orchestration.supervisor import Supervisor, supervise

DEFINITIONS = """
import time
import dagster as dg

@dg.asset(pool="training")
def slow() -> None:
    time.sleep(120)

@dg.asset(pool="training")
def quick() -> None: ...

defs = dg.Definitions(
    assets=[slow, quick],
    executor=dg.in_process_executor,
    jobs=[dg.define_asset_job("slow_job", selection="slow"), dg.define_asset_job("quick_job", selection="quick")],
)
"""
LAUNCH = """mutation($job: String!) { launchRun(executionParams: {runConfigData: {}, selector: {
    repositoryName: "__repository__", repositoryLocationName: "detectors", jobName: $job}}) {
    __typename ... on LaunchRunSuccess { run { runId } } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def by_name(processes: list[Process]) -> dict[str, Process]:
    return {process.name: process for process in processes}


@pytest.fixture
def ports() -> stack.Ports:
    with ExitStack() as stack_of_sockets:
        free = []
        for _ in range(4):
            probe = stack_of_sockets.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            free.append(probe.getsockname()[1])
        return stack.Ports(dagster=free[0], mlflow=free[1], service=free[2], code=free[3])


def test_the_profiles_start_the_same_processes_with_other_values(tmp_path: Path) -> None:
    embedded = stack.processes(tmp_path, profile="embedded", ports=stack.Ports())
    team = stack.processes(tmp_path, profile="team", ports=stack.Ports())

    assert [p.name for p in embedded] == [p.name for p in team] == ["mlflow", "service", "code", "dagster", "daemon"]
    assert "basic-auth" in by_name(team)["mlflow"].command
    assert by_name(embedded)["mlflow"].env["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert by_name(team)["mlflow"].env["MLFLOW_BACKEND_STORE_URI"] == "postgresql:///mlflow"
    assert by_name(team)["code"].env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_what_the_user_has_set_wins_over_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://elsewhere/mlflow")

    env = stack.environment(tmp_path, profile="team", ports=stack.Ports())

    assert env["MLFLOW_BACKEND_STORE_URI"] == "postgresql://elsewhere/mlflow"


def test_telemetry_is_off_in_every_child(tmp_path: Path) -> None:
    env = stack.environment(tmp_path, profile="embedded", ports=stack.Ports())

    assert (env["DAGSTER_DISABLE_TELEMETRY"], env["MLFLOW_DISABLE_TELEMETRY"]) == ("1", "true")


def test_env_files_are_read_as_compose_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("# a comment\n\nONE=1\nURI=postgresql://h/d?x=y\n")
    (tmp_path / "b.env").write_text("ONE=2\n")

    assert stack.read_env_files([tmp_path / "a.env", tmp_path / "b.env"]) == {
        "ONE": "2",
        "URI": "postgresql://h/d?x=y",
    }


def test_a_taken_port_ends_the_command_with_the_flag_to_use(
    tmp_path: Path, ports: stack.Ports, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.mlflow))
        other.listen()

        code = stack.up("embedded", ports)

    assert code == 1
    assert f"port {ports.mlflow} for mlflow is taken; choose another with --mlflow-port" in capsys.readouterr().out


def test_a_second_one_is_refused_and_leaves_the_configuration_of_the_first(
    tmp_path: Path, ports: stack.Ports, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path))
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("the first's")
    with supervise([], home=tmp_path):
        code = stack.up("team", ports)

    assert code == 1
    assert "is held by" in capsys.readouterr().out
    assert (tmp_path / "dagster" / "dagster.yaml").read_text() == "the first's"


def test_what_dagster_cannot_keep_its_tables_in_ends_the_command_with_its_last_words(
    tmp_path: Path, ports: stack.Ports, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path))
    monkeypatch.setenv("MEWS_DAGSTER_DB", "no address")

    code = stack.up("team", ports)

    assert code == 1
    assert "Dagster could not make its tables: " in (told := capsys.readouterr().out)
    assert "Traceback" not in told


def test_every_port_has_the_flag_that_a_taken_one_tells_of(tmp_path: Path) -> None:
    options = inspect.signature(cli.up).parameters

    for process in stack.processes(tmp_path, profile="embedded", ports=stack.Ports()):
        if process.port:
            assert options[f"{process.name}_port"].default == process.port


# The real stack, once for the tests below; the service has its own test, for it needs no Dagster.


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    (home / "tried_definitions.py").write_text(DEFINITIONS)
    yield home
    kill_marked(f"{home.resolve()}|")


def tick_until(supervisor: Supervisor, is_true: Callable[[], bool], *, timeout_s: float = 150) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, json.dumps(supervisor.report(), indent=2)
        supervisor.tick()
        time.sleep(0.1)


def ask(ports: stack.Ports, query: str, **variables: str) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{ports.dagster}/graphql", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def launched(ports: stack.Ports, job: str) -> str:
    return ask(ports, LAUNCH, job=job)["launchRun"]["run"]["runId"]


def has_status(ports: stack.Ports, run_id: str, status: str) -> bool:
    return ask(ports, STATUS, id=run_id)["runOrError"]["status"] == status


@pytest.mark.slow
def test_each_killed_process_of_the_stack_comes_back_and_the_next_run_completes(
    home: Path, ports: stack.Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{home}{os.pathsep}{Path.cwd()}")
    table = stack.processes(home, profile="embedded", ports=ports, definitions="tried_definitions")
    stack.create_tables(table[0].env)
    with supervise([p for p in table if p.name != "service"], home=home) as supervisor:
        tick_until(supervisor, supervisor.is_up)
        tick_until(supervisor, lambda: is_loaded(ports))
        interrupted = launched(ports, "slow_job")
        tick_until(supervisor, lambda: has_status(ports, interrupted, "STARTED"))

        before = {child: child.num_restarts for child in supervisor.children}
        for child in supervisor.children:
            os.kill(child.pid or 0, signal.SIGKILL)
        tick_until(supervisor, lambda: all(c.num_restarts > n for c, n in before.items()) and supervisor.is_up())
        tick_until(supervisor, lambda: is_loaded(ports))
        following = launched(ports, "quick_job")
        tick_until(supervisor, lambda: has_status(ports, following, "SUCCESS"))

        assert has_status(ports, interrupted, "FAILURE")
    assert not marked(f"{home.resolve()}|")


def is_loaded(ports: stack.Ports) -> bool:
    nodes = ask(ports, "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
    return bool(nodes["repositoriesOrError"].get("nodes"))


def test_the_stack_is_described_without_importing_what_it_starts() -> None:
    program = "import sys, orchestration.stack, orchestration.supervisor; print('dagster' in sys.modules)"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "False"
