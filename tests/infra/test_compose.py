"""The compose file: everything it names exists, is pinned, says how it is, and asks for its secrets."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import mlflow.environment_variables
import pytest
import yaml

INFRA = Path("infra")
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EACH_SERVICE = pytest.mark.parametrize("name", SERVICES)


def names_set_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", path.read_text(), re.MULTILINE))


@EACH_SERVICE
def test_every_service_says_how_it_is(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@EACH_SERVICE
def test_every_image_is_pinned_and_every_service_comes_back(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]

    assert re.search(r"\d+\.\d+\.\d+|\d{4}-\d\d-\d\d|\d+\.\d+-", tag), tag
    assert SERVICES[name]["restart"] == "unless-stopped"


@EACH_SERVICE
def test_every_file_it_names_exists(name: str) -> None:
    service = SERVICES[name]
    mounted = [v.split(":")[0] for v in service["volumes"] if v.startswith("./")] if "volumes" in service else []
    envs = [path for path in service.get("env_file", []) if path != ".env"]
    built = [service["build"]["context"] + "/" + service["build"]["dockerfile"]] if "build" in service else []

    assert [path for path in mounted + envs + built if not (INFRA / path).is_file()] == []


@EACH_SERVICE
def test_what_a_service_waits_for_exists_and_is_waited_for_until_it_is_well(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        assert how == {"condition": "service_healthy"}


def test_every_variable_it_asks_for_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", (INFRA / "compose.yaml").read_text()))

    assert asked - names_set_in(INFRA / ".env.example") == set()


def test_only_the_proxy_and_the_service_are_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"proxy", "service"}


def test_named_volumes_are_declared() -> None:
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if not v.startswith(".")}

    assert used == set(COMPOSE["volumes"])


def test_what_steps_print_and_keys_lie_in_the_home_that_the_images_own() -> None:
    places = {SERVICES[name]["environment"]["DAGSTER_HOME"] for name in ("code", "dagster", "daemon")}

    assert places == {"/var/lib/mews/dagster"}
    for image in sorted((INFRA / "docker").glob("*.Dockerfile")):
        assert "install -d -o mews /var/lib/mews /var/lib/mews/dagster" in image.read_text()
    assert "MEWS_API_KEYS_FILE" not in SERVICES["service"]["environment"]


def test_mlflows_pages_may_be_asked_from_where_people_open_them() -> None:
    origins = SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"]

    assert origins == "${MEWS_MLFLOW_ORIGIN:-http://localhost:5000}"
    assert hasattr(mlflow.environment_variables, "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")


def test_the_gpu_file_only_adds_to_a_service_that_exists() -> None:
    extra = yaml.safe_load((INFRA / "compose.gpu.yaml").read_text())

    assert set(extra["services"]) <= set(SERVICES)


def test_no_secret_is_committed_and_the_readmes_command_makes_all_of_them() -> None:
    command = next(line for line in (INFRA / "README.md").read_text().splitlines() if line.startswith("awk "))
    command = command.rpartition(" > ")[0]

    made = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()

    empty = [line for line in (INFRA / ".env.example").read_text().splitlines() if re.fullmatch(r"[A-Z_]+=", line)]
    secrets = [line.partition("=")[2] for line in made if f"{line.partition('=')[0]}=" in empty]
    assert {line.partition("=")[0] for line in empty} >= {"PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"}
    assert len(set(secrets)) == len(empty)
    assert all(re.fullmatch(r"[0-9a-f]{48}", secret) for secret in secrets)


def test_the_team_keeps_dagsters_settings_and_changes_only_where_they_are_kept() -> None:
    team = yaml.safe_load((INFRA / "team" / "dagster.yaml").read_text())

    assert set(team.pop("storage")) == {"postgres"}
    assert team == yaml.safe_load((INFRA / "dagster.yaml").read_text())


def test_pods_are_told_apart_from_traffic_before_they_end() -> None:
    objects = list(yaml.safe_load_all((INFRA / "kubernetes" / "service.yaml").read_text()))
    deployment, budget, service = objects
    container = deployment["spec"]["template"]["spec"]["containers"][0]

    assert [o["kind"] for o in objects] == ["Deployment", "PodDisruptionBudget", "Service"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"  # nothing may be deployed yet
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_slurm_starts_torchrun_on_the_run_folder(tmp_path: Path) -> None:
    stubs = {"srun": 'echo "$@"', "scontrol": "echo node7; echo node8", "python": 'echo "python $@"'}
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "41"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    answer = subprocess.run(
        ["bash", INFRA / "training" / "train.sbatch", "runs/content/1"],
        env={**slurm, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    first, second = answer.stdout.splitlines()
    assert first == "python -m training.near_duplicates runs/content/1"
    assert second == (
        "torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d --rdzv-id 41 "
        "--rdzv-endpoint node7:29400 -m training runs/content/1"
    )


def test_kubeflow_starts_torchrun_on_the_run_folder() -> None:
    text = (INFRA / "training" / "trainjob.yaml").read_text().replace("${RUN_DIR}", "runs/content/1")

    spec = yaml.safe_load(text)["spec"]

    [pods] = spec["podTemplateOverrides"]
    [mount] = pods["spec"]["containers"][0]["volumeMounts"]
    home = next(one["value"] for one in spec["trainer"]["env"] if one["name"] == "MEWS_HOME")
    assert " ".join(spec["trainer"]["command"]) == f"torchrun --max-restarts=3 -m training {home}/runs/content/1"
    assert (mount["name"], mount["mountPath"]) == (pods["spec"]["volumes"][0]["name"], home)
