"""The files of deploy/ say what the programs that read them, and the code, understand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric

from sentimesh.telemetry import Metrics

ROOT = Path(__file__).resolve().parent.parent
STAGES = {"ingest": 50051, "filter": 50052, "scorer": 50053, "aggregator": 50054, "gateway": 50055}
# The specification's, of the live platforms' sources.
METRICS_TO_COME = {"social_api_rate_limit_remaining"}


COMPOSE_SECRETS = ("POSTGRES_PASSWORD", "INFLUXDB_PASSWORD", "INFLUXDB_TOKEN")


def peer(name: str) -> Path:
    """Return a program that `make peers` builds."""
    program = ROOT / ".peers" / "bin" / name
    if not program.exists():
        pytest.skip(f"{name} is not built: make peers")
    return program


@pytest.fixture
def compose() -> Any:
    """The compose file as docker-compose reads it."""
    result = subprocess.run(
        [peer("docker-compose"), "-f", ROOT / "docker-compose.yml", "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **dict.fromkeys(COMPOSE_SECRETS, "given")},
        check=True,
        capture_output=True,
    )
    return json.loads(result.stdout)


@pytest.mark.peer
def test_compose_runs_each_stage_by_the_command_line(compose: Any) -> None:
    commands = {name: service["command"] for name, service in compose["services"].items() if name in STAGES}
    assert commands == {name: ["run", name] for name in STAGES}
    for name, port in STAGES.items():
        assert compose["services"][name]["healthcheck"]["test"][-1] == str(port)


@pytest.mark.peer
def test_compose_publishes_on_the_loopback_interface_only(compose: Any) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert "50055" in {port["published"] for port in published}
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


@pytest.mark.peer
def test_compose_keeps_stored_models_in_a_volume_that_the_image_lets_the_scorer_write(compose: Any) -> None:
    scorer = compose["services"]["scorer"]
    [volume] = scorer["volumes"]
    assert (volume["type"], volume["source"]) == ("volume", "models")
    assert volume["target"] == scorer["environment"]["SENTIMESH__MODEL__STORE"]
    assert compose["services"]["filter"]["environment"].items() <= scorer["environment"].items()
    assert f"install -d -o 10001 -g 10001 {volume['target']}\n" in (ROOT / "deploy" / "Dockerfile").read_text()


@pytest.mark.peer
@pytest.mark.parametrize("missing", COMPOSE_SECRETS)
def test_compose_wants_its_secrets_from_the_environment(missing: str) -> None:
    given = dict.fromkeys(COMPOSE_SECRETS, "given")
    del given[missing]
    result = subprocess.run(
        [peer("docker-compose"), "-f", ROOT / "docker-compose.yml", "config", "-q"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert f"set {missing}" in result.stderr


def test_the_brokers_configuration_is_valid_and_writes_through() -> None:
    server = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert server is not None
    subprocess.run([server, "-t", "-c", ROOT / "deploy" / "nats.conf"], check=True, capture_output=True)
    assert "sync_interval: always" in (ROOT / "deploy" / "nats.conf").read_text()


def kustomized(folder: Path) -> list[Any]:
    """Return the Kubernetes objects as kustomize makes them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    result = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture
def objects() -> list[Any]:
    return kustomized(ROOT / "deploy" / "kubernetes")


@pytest.mark.peer
def test_kubernetes_runs_each_stage_with_a_health_probe_and_no_secret_of_ours(objects: list[Any]) -> None:
    workloads = {o["metadata"]["name"]: o for o in objects if o["kind"] in ("Deployment", "StatefulSet")}
    services = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "Service"}
    assert set(workloads) == set(services) == set(STAGES)
    assert {name for name, o in workloads.items() if o["kind"] == "StatefulSet"} == {"aggregator"}
    for name, port in STAGES.items():
        [container] = workloads[name]["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["run", name]
        # The gateway answers whatever is down.
        ready = {"tcpSocket": {"port": "grpc"}} if name == "gateway" else {"grpc": {"port": port}}
        assert ready.items() <= container["readinessProbe"].items()
        secrets = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "secretKeyRef" in str(e)}
        assert {name: bool(secret.get("optional")) for name, secret in secrets.items()} == {
            "SENTIMESH__NATS__URL": False,
            "SENTIMESH__STORAGE__REDIS__URL": False,
            "SENTIMESH__STORAGE__POSTGRESQL__DSN": False,
            "SENTIMESH__STORAGE__INFLUXDB__URL": True,
            "SENTIMESH__STORAGE__INFLUXDB__TOKEN": True,
        }
        labels = workloads[name]["spec"]["template"]["metadata"]["labels"]
        assert services[name]["selector"].items() <= labels.items()
    assert not [o for o in objects if o["kind"] == "Secret"]


@pytest.mark.peer
def test_kubernetes_tells_each_aggregator_which_of_how_many_it_is(objects: list[Any]) -> None:
    [aggregator] = [o for o in objects if o["kind"] == "StatefulSet"]
    [container] = aggregator["spec"]["template"]["spec"]["containers"]
    variables = {e["name"]: e for e in container["env"]}
    assert variables["SENTIMESH__AGGREGATION__REPLICA_COUNT"]["value"] == str(aggregator["spec"]["replicas"])
    index = variables["SENTIMESH__AGGREGATION__REPLICA_INDEX"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.labels['apps.kubernetes.io/pod-index']"


@pytest.mark.peer
def test_kubernetes_can_keep_stored_models_in_a_volume_that_all_scorers_share(
    objects: list[Any], tmp_path: Path
) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(ROOT / "deploy" / "kubernetes", folder)
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("# components:", "components:"))
    with_store = kustomized(folder)
    [claim] = [o for o in with_store if o["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    changed = [o for o in with_store if o not in objects and o is not claim]
    assert [(o["kind"], o["metadata"]["name"]) for o in changed] == [("Deployment", "scorer")]
    pod = changed[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    variables = {e["name"]: e.get("value") for e in container["env"]}
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mounts["models"] == variables["SENTIMESH__MODEL__STORE"]
    assert "tmp" in mounts
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    assert "SENTIMESH__NATS__URL" in variables


def _names(metric: Metric) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return {f"{metric.name}{suffix}" for suffix in suffixes[metric.type]}


def test_every_alert_reads_metrics_that_exist() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    known = {name for metric in Metrics().registry.collect() for name in _names(metric)}
    assert len(rules) == 11
    for rule in rules:
        read = set(re.findall(r"\bsocial_\w+", rule["expr"]))
        assert read, rule["alert"]
        assert read <= known | METRICS_TO_COME, rule["alert"]


@pytest.mark.peer
def test_prometheus_accepts_the_rules() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    subprocess.run(["promtool", "check", "rules", ROOT / "deploy" / "prometheus" / "rules.yml"], check=True)
