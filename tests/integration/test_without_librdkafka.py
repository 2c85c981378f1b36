"""Machines without the library of a client: kafka-python-ng works without confluent-kafka, except its extras, confluent without aiokafka."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_arrival import Place
from tests.rigs.kafka import KafkaRig
from tests.rigs.workspace import ROOT, environment

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "confluent_kafka":
            raise ModuleNotFoundError(f"no {name} on this machine", name=name)

sys.meta_path.insert(0, Absent())
"""
ROWS = 300


def python(code: str, folder: Path, *, without: str = "confluent_kafka") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.replace("confluent_kafka", without) + code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=120,
    )


def command(folder: Path, *words: str, without: str = "confluent_kafka") -> subprocess.CompletedProcess[str]:
    code = f"sys.argv = {['core', *words]!r}\nfrom core.cli.main import main\nmain()"
    return python(code, folder, without=without)


def test_a_job_runs_and_its_messages_arrive(tmp_path: Path, kafka: KafkaRig) -> None:
    place = Place(tmp_path / "ws")
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=ROWS, cluster={"client": "kafka-python-ng", "enable_idempotence": False})
    done = command(place.folder, "run", "export", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["acknowledged"] == ROWS
    assert len(kafka.read(topic)) == ROWS


def test_a_message_that_the_topic_refuses_fails_alone(tmp_path: Path, kafka: KafkaRig) -> None:
    """Why it is refused is asked through confluent-kafka; without it the error names what may be the reason."""
    place = Place(tmp_path / "ws")
    topic = kafka.create_topic(config={"max.message.bytes": "150"})
    place.make(kafka, topic, rows=2, cluster={"client": "kafka-python-ng", "enable_idempotence": False})
    done = command(place.folder, "run", "export", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert (found["acknowledged"], found["rejected"]) == (0, 2), found
    reasons = command(place.folder, "rejects", found["run_id"]).stdout
    assert "max.message.bytes" in reasons, reasons


def test_an_idle_worker_gets_ready(tmp_path: Path, kafka: KafkaRig) -> None:
    place = Place(tmp_path / "ws")
    place.make(kafka, "any", rows=1, cluster={"client": "kafka-python-ng", "enable_idempotence": False})
    code = "from pathlib import Path\nfrom core.app import App\nfrom core.cli.worker import warm_up\n"
    done = python(
        f"{code}with App.open(Path({str(place.folder)!r}), {{}}, log=False) as app:\n    warm_up(app)", tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("client", ["aiokafka", "confluent"])
def test_what_needs_confluent_kafka_says_so(client: str, tmp_path: Path, kafka: KafkaRig) -> None:
    place = Place(tmp_path / "ws")
    place.make(kafka, "any", rows=1, cluster={"client": client})
    done = command(place.folder, "run", "export")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "pip install" in done.stderr
    assert "confluent-kafka" in done.stderr
    assert "KAFKA_CLIENT" in done.stderr


def test_without_aiokafka_a_job_that_names_no_client_runs_through_confluent(tmp_path: Path, kafka: KafkaRig) -> None:
    place = Place(tmp_path / "ws")
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=ROWS)
    done = command(place.folder, "run", "export", "--json", without="aiokafka")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["acknowledged"] == len(kafka.read(topic)) == ROWS
    place.make(kafka, topic, rows=ROWS, cluster={"client": "aiokafka"})
    done = command(place.folder, "run", "export", without="aiokafka")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "pip install aiokafka cramjam google-crc32c confluent-kafka" in " ".join(done.stderr.split())
    assert "set KAFKA_CLIENT (client in connections.json) to confluent or kafka-python-ng" in " ".join(
        done.stderr.split()
    )
