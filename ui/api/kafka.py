"""`/api/kafka`: state of the clusters, metrics of what was sent, and sending one message by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from core.admin.actions import allow_test
from core.admin.topic_messages import topics_of_cluster
from core.cli.message_lines import topic_document
from core.errors import BrokerUnavailable, ConfigError, PsttError
from core.kafka import open_publisher
from core.kafka.service import KafkaService
from core.model.connection import Cluster
from core.records.metrics_queries import MetricsQueries, SendFilter
from core.scheduler.broker_health import look
from ui.api import shapes
from ui.api.auth import MessageSender, Reader, Watcher
from ui.api.body import document
from ui.api.documents import takes
from ui.api.idempotency import IdempotencyKey, idempotent
from ui.api.pages import Limit, Offset, page
from ui.api.problems import not_found, responses
from ui.api.workspace import now, opened, workspace
from ui.cache import SharedCache
from ui.metrics_answers import metrics_answer, metrics_version

if TYPE_CHECKING:
    from core.app import App

router = APIRouter(prefix="/kafka", tags=["kafka"], responses=responses(401, 403, 422, 503))

PROBED_EVERY_S = 5.0
"""Seconds between two probes of a broker, however many callers ask."""
CHECK_S = 1.0
"""Seconds between two checks whether there is a new version of the metrics; a document is encoded once for all callers."""
STALE_S = 2.0
"""A document that was checked before that is not returned: the first caller after a pause waits for the check."""
JSON = "application/json"

ClusterName = Annotated[
    str | None, Query(max_length=200, description="A name of kafka_connections; none: default_environment.")
]
Filter = Annotated[str | None, Query(max_length=300)]


@router.get("/health")
def health(caller: Reader) -> shapes.KafkaHealth:
    """Whether the brokers of every cluster accept connections, without a login. `POST /test` logs in."""
    return _health.get(workspace().root)


@router.get("/topics", responses=responses(404, 502))
def topics(
    caller: Reader,
    cluster: ClusterName = None,
    search: Annotated[str, Query(max_length=249, description="A part of the name.")] = "",
    counts: Annotated[bool, Query(description="Count the messages of each topic on the page.")] = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> shapes.Topics:
    """The topics of a cluster that this account may see."""
    with opened() as app:
        chosen = chosen_cluster(app, cluster)
    if counts:
        counted, total = topics_of_cluster(chosen, search, limit=limit, offset=offset)
        rows = [shapes.TopicRow.model_validate(topic_document(topic)) for topic in counted]
        return shapes.Topics(cluster=chosen.name, items=rows, total=total, limit=limit, offset=offset)
    publisher = open_publisher(chosen)
    try:
        found = sorted(publisher.topics(), key=lambda topic: topic.name)
    finally:
        publisher.close(1.0)
    wanted = search.strip().lower()
    rows = [
        shapes.TopicRow(name=t.name, partitions=t.partitions, replication=t.replication)
        for t in found
        if wanted in t.name.lower()
    ]
    return shapes.Topics(cluster=chosen.name, **page(rows, limit, offset))


@router.get("/metrics", response_model=shapes.Metrics)
async def metrics(caller: Watcher, job: Filter = None, topic: Filter = None, cluster: Filter = None) -> Response:
    """Everything that was sent: totals, rates, latencies, by topic, errors of the last 24 hours."""
    return Response(await _everything.get_async((workspace().root, SendFilter(job, topic, cluster))), media_type=JSON)


@router.get("/metrics/summary", response_model=shapes.Summary)
async def summary(caller: Watcher) -> Response:
    """Today and the last seven days. A send is counted at most two seconds later."""
    return Response(await _summary.get_async(workspace().root), media_type=JSON)


@router.post("/test", responses=responses(404, 413, 415), openapi_extra=takes(shapes.TestShape, required=False))
def test(
    caller: MessageSender, asked: Annotated[shapes.TestShape, Depends(document(shapes.TestShape, optional=True))]
) -> shapes.Tested:
    """Logs in to a cluster. A cluster that does not respond is a result too, not an error."""
    with opened() as app:
        cluster = chosen_cluster(app, asked.cluster)
        allow_test(app.ledger, "test", f"cluster {cluster.name}", caller=caller, now=now())
    with KafkaService(cluster) as service:
        found = service.health_check()
    return shapes.Tested(
        cluster=cluster.name,
        connected=found.connected,
        brokers=list(found.brokers),
        latency_ms=found.latency_ms,
        error=found.error,
    )


@router.post(
    "/send",
    response_model=shapes.Sent,
    responses=responses(404, 409, 413, 415, 502, 504),
    openapi_extra=takes(shapes.SendShape),
)
def send(
    caller: MessageSender,
    message: Annotated[shapes.SendShape, Depends(document(shapes.SendShape))],
    key: IdempotencyKey = None,
) -> Response:
    """Sends one message and waits for its acknowledgement; it is recorded like every other send."""

    def do() -> tuple[int, dict[str, Any], dict[str, str]]:
        from core.run.send_by_hand import send_message  # loads pyarrow

        with opened() as app:
            _require_brokers(chosen_cluster(app, message.cluster))
            value = _text(message.value)
            sent = send_message(
                app, message.topic, message.key, value, cluster=message.cluster, caller=caller, now=now()
            )
        return 200, sent, {}

    return idempotent(workspace(), caller, key, "send", message.model_dump(), do)


def chosen_cluster(app: App, name: str | None) -> Cluster:
    """Returns the cluster that a request names, else the default one."""
    try:
        return app.cluster(name)
    except ConfigError as error:
        if name is None or name in app.connections.cluster_names:
            raise
        raise not_found(error) from None


def _require_brokers(cluster: Cluster) -> None:
    """Fails fast if no broker responds: a client retries for minutes, which is too long for a request."""
    if cluster.mock_brokers:
        return
    sample = look(cluster, now())
    if not sample.connected:
        raise BrokerUnavailable(
            f'no broker of cluster "{cluster.name}" answers at {cluster.bootstrap_servers}',
            why=sample.error or "",
            remedy="try again when it is there; nothing was sent",
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ── what many ask for at once ─────────────────────────────────────────────────────────────────


def _find_summary(folder: Path) -> bytes:
    return _encoded(folder, SendFilter(), ("today", "last_7_days"))


def _find_everything(asked: tuple[Path, SendFilter]) -> bytes:
    return _encoded(*asked, shapes.Metrics.model_fields)


def _encoded(folder: Path, send_filter: SendFilter, names: Iterable[str]) -> bytes:
    found = metrics_answer(metrics_version(folder), now(), MetricsQueries.summary, send_filter)
    return msgspec.json.encode({name: found[name] for name in names})


def _find_health(folder: Path) -> shapes.KafkaHealth:
    found = []
    with opened() as app:
        names: list[str | None] = list(app.connections.cluster_names) or [None]
        for name in names:
            try:
                cluster = app.cluster(name)
            except PsttError as error:
                found.append(shapes.ClusterHealth(name=name or "", connected=False, error=error.text, looked_at=now()))
                continue
            if cluster.mock_brokers:
                found.append(shapes.ClusterHealth(name=cluster.name, connected=None, looked_at=now()))
                continue
            sample = look(cluster, now())
            found.append(
                shapes.ClusterHealth(
                    name=cluster.name,
                    connected=sample.connected,
                    latency_ms=sample.latency_ms,
                    error=sample.error,
                    looked_at=sample.at,
                )
            )
    return shapes.KafkaHealth(connected=all(one.connected is not False for one in found), clusters=found)


_summary = SharedCache(_find_summary, fresh_s=CHECK_S, stale_s=STALE_S)
_everything = SharedCache(_find_everything, fresh_s=CHECK_S, stale_s=STALE_S)
_health = SharedCache(_find_health, fresh_s=PROBED_EVERY_S, stale_s=PROBED_EVERY_S)
