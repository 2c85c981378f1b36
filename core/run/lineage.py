"""OpenLineage events of runs: what was read and where it went, over HTTP, into a file or onto a topic.

Source: https://openlineage.io/docs/spec. Datasets are named as https://openlineage.io/docs/spec/naming says.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from openlineage.client import event_v2, set_producer
from openlineage.client.facet_v2 import (
    documentation_job,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    processing_engine_run,
    schema_dataset,
    sql_job,
    tags_run,
)
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

from core.clock import iso_utc
from core.errors import BrokerUnavailable, ConfigError
from core.kafka import open_publisher
from core.kafka.messages import make_batch
from core.kafka.sender import Sender
from core.model.run import Run
from core.records.opened import OpenWorkspace
from core.run.lineage_datasets import DatasetName, input_tables, output_dataset
from core.run.observation import Observation
from core.sources import find_dialect
from core.version import __version__
from core.workspace.secrets import resolve_secret

__all__ = ["LineageSink", "into_file", "into_topic", "over_http"]

PRODUCER = f"urn:pstt-kafka:{__version__}"
HTTP_TIMEOUT_S = 2.0
RETRIES = {"total": 1, "read": 1, "connect": 1, "backoff_factor": 0.2}
KAFKA_TIMEOUT_S = 5.0

Emit = Callable[[event_v2.RunEvent], None]
_file_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class LineageSink:
    """Builds the events of a run and sends each one."""

    emit: Emit
    namespace: str
    """Of jobs."""
    inputs: Sequence[DatasetName]
    output: DatasetName
    dialect: str
    """Of the SQL, by its name for sqlglot, which other tools know too; empty: its connection is not set up any more."""

    def started(self, seen: Observation) -> None:
        """Sends START."""
        self.emit(self._event(seen, event_v2.RunState.START))

    def ended(self, seen: Observation) -> None:
        """Sends COMPLETE, ABORT for a cancelled run, or FAIL."""
        run = _run_of(seen)
        states = {"succeeded": event_v2.RunState.COMPLETE, "cancelled": event_v2.RunState.ABORT}
        self.emit(self._event(seen, states.get(run.state, event_v2.RunState.FAIL)))

    def _event(self, seen: Observation, state: event_v2.RunState) -> event_v2.RunEvent:
        run = _run_of(seen)
        is_start = state == event_v2.RunState.START
        at = run.started_at if is_start or run.finished_at is None else run.finished_at
        return event_v2.RunEvent(
            eventType=state,
            eventTime=iso_utc(at),
            run=event_v2.Run(runId=_uuid(self.namespace, run), facets=_run_facets(run, is_start=is_start)),
            job=event_v2.Job(self.namespace, run.job, facets=self._job_facets(run)),
            inputs=self._inputs(seen, run, is_start=is_start),
            outputs=[self._output(seen, run, is_start=is_start)],
            producer=PRODUCER,
        )

    def _job_facets(self, run: Run) -> dict[str, Any]:
        return {
            "sql": sql_job.SQLJobFacet(query=run.sql_text, dialect=self.dialect or None),
            "jobType": job_type_job.JobTypeJobFacet(processingType="BATCH", integration="PSTT_KAFKA", jobType="JOB"),
            "documentation": documentation_job.DocumentationJobFacet(description=run.job_name),
        }

    def _inputs(self, seen: Observation, run: Run, *, is_start: bool) -> list[event_v2.InputDataset]:
        """Returns the tables. Schema and row count are those of the result, so only a single table has them."""
        facets: dict[str, Any] = {}
        counts: dict[str, Any] = {}
        if len(self.inputs) == 1:
            if seen.result:
                facets["schema"] = _schema([(c.name, c.database_type) for c in seen.result])
            if not is_start:
                count = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=run.rows_read)
                counts["inputStatistics"] = count
        return [
            event_v2.InputDataset(table.namespace, table.name, facets=facets, inputFacets=counts)
            for table in self.inputs
        ]

    def _output(self, seen: Observation, run: Run, *, is_start: bool) -> event_v2.OutputDataset:
        facets: dict[str, Any] = {}
        counts: dict[str, Any] = {}
        if seen.result:
            facets["schema"] = _schema([(c.name.lower(), c.kind) for c in seen.result])
        if not is_start:
            counts["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=run.acknowledged, size=run.bytes
            )
        return event_v2.OutputDataset(self.output.namespace, self.output.name, facets=facets, outputFacets=counts)


def over_http(opened: OpenWorkspace, run: Run, file: str) -> LineageSink:
    """Returns a sink that posts to OPENLINEAGE_URL.

    Raises:
        ConfigError: The secret of OPENLINEAGE_API_KEY cannot be read.
    """
    settings = opened.settings
    auth = TokenProvider({})
    if settings.OPENLINEAGE_API_KEY is not None:
        reference = settings.OPENLINEAGE_API_KEY.get_secret_value()
        key = resolve_secret(reference, opened.variables, opened.workspace.root)
        auth = ApiKeyTokenProvider({"api_key": key.reveal()})
    config = HttpConfig(url=settings.OPENLINEAGE_URL or "", timeout=HTTP_TIMEOUT_S, auth=auth, retry=RETRIES)
    transport = HttpTransport(config)

    def post(event: event_v2.RunEvent) -> None:
        transport.emit(event)

    return _sink(opened, run, file, post)


def into_file(opened: OpenWorkspace, run: Run, file: str) -> LineageSink:
    """Returns a sink that appends one line of JSON for each event to PSTT_LINEAGE_FILE."""
    events = opened.workspace.root / str(opened.settings.PSTT_LINEAGE_FILE)

    def append(event: event_v2.RunEvent) -> None:
        # One write in append mode: lines of several processes do not mix.
        line = (json.dumps(Serde.to_dict(event), ensure_ascii=False) + "\n").encode()
        with _file_lock:
            events.parent.mkdir(parents=True, exist_ok=True)
            with events.open("ab", buffering=0) as target:
                target.write(line)

    return _sink(opened, run, file, append)


def into_topic(opened: OpenWorkspace, run: Run, file: str) -> LineageSink:
    """Returns a sink that sends to PSTT_LINEAGE_TOPIC, `TOPIC` or `CLUSTER/TOPIC`, keyed by the job.

    Raises:
        ConfigError: The cluster is not set up.
    """
    name, _, topic = str(opened.settings.PSTT_LINEAGE_TOPIC).rpartition("/")
    cluster = opened.connections.cluster(name or None, opened.settings)

    def send(event: event_v2.RunEvent) -> None:
        publisher = open_publisher(cluster)
        try:
            sender = Sender(publisher, max_retries=1, backoff_ms=100)
            key = f"run:{event.job.namespace}/{event.job.name}".encode()
            batch = make_batch(1, topic, [key], [json.dumps(Serde.to_dict(event), ensure_ascii=False).encode()])
            delivery = sender.submit(batch)
            sender.drain(KAFKA_TIMEOUT_S)
            for error in delivery.errors.values():
                raise error
            if not delivery.acknowledged:
                raise BrokerUnavailable(f'topic "{topic}" does not answer', why=f"within {KAFKA_TIMEOUT_S:g} s")
        finally:
            publisher.close(0.1)

    return _sink(opened, run, file, send)


def _sink(opened: OpenWorkspace, run: Run, file: str, emit: Emit) -> LineageSink:
    set_producer(PRODUCER)
    namespace, output = opened.settings.OPENLINEAGE_NAMESPACE, output_dataset(opened, run, file)
    try:
        connection = opened.connections.database(run.connection)
    except ConfigError:  # of a run that is long over: its connection may be gone
        return LineageSink(emit, namespace, [], output, "")
    dialect = find_dialect(connection.db_type)
    return LineageSink(emit, namespace, input_tables(run, connection, dialect), output, dialect.sqlglot)


def _run_of(seen: Observation) -> Run:
    if seen.run is None:
        raise ValueError("the run has not started")
    return seen.run


def _uuid(namespace: str, run: Run) -> str:
    """Returns the same id for each event of a run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pstt-kafka:{namespace}/{run.job}/{run.run_id}"))


def _run_facets(run: Run, *, is_start: bool) -> dict[str, Any]:
    facets: dict[str, Any] = {
        "nominalTime": nominal_time_run.NominalTimeRunFacet(nominalStartTime=iso_utc(run.scheduled_at)),
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(version=__version__, name="PSTT Kafka"),
    }
    tags = {"run_id": run.run_id, "kind": run.kind, "attempt": str(run.attempt)}
    if run.of_run:
        tags["replay_of"] = run.of_run
    if not is_start:
        tags |= {"verdict": run.verdict, "rows_rejected": str(run.rejected), "rows_failed": str(run.failed)}
        if run.error_text:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=f"{run.error_class}: {run.error_text}", programmingLanguage="python"
            )
    facets["tags"] = tags_run.TagsRunFacet(
        tags=[tags_run.TagsRunFacetFields(key, value, "PSTT_KAFKA") for key, value in tags.items()]
    )
    return facets


def _schema(fields: Sequence[tuple[str, str]]) -> schema_dataset.SchemaDatasetFacet:
    return schema_dataset.SchemaDatasetFacet(
        fields=[
            schema_dataset.SchemaDatasetFacetFields(name, type=type_, ordinal_position=number)
            for number, (name, type_) in enumerate(fields, 1)
        ]
    )
