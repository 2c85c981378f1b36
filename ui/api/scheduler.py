"""`/api/scheduler`: jobs, their runs, and requests to the runner. Nothing runs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime

from core.admin.check import check_job
from core.admin.edit_jobs import create_job, delete_job, job_files, replace_job, require_seen, slug_of
from core.calendar.cron import next_scheduled_times
from core.cli.documents import run_document
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.model.progress import RunProgress
from core.model.run import Run, RunState, Verdict
from core.records.rights import Caller
from core.records.run_progress import ProgressFiles
from core.run.planning import unusable_jobs
from core.scheduler.commands import set_job_enabled
from core.scheduler.control import ask_for_run
from core.scheduler.next_attempt import NextAttempt, next_attempt
from core.workspace.job_schema import JobShape
from core.workspace.jobs import JobFile, NoSuchJob, checked_job, read_job_file
from core.workspace.json_file import parse_json_file
from ui import apart
from ui.api import shapes
from ui.api.auth import Changer, MessageSender, Reader
from ui.api.body import document, read_text
from ui.api.documents import takes
from ui.api.etags import ETAG, required_match
from ui.api.idempotency import IdempotencyKey, idempotent
from ui.api.language import said
from ui.api.pages import Limit, Offset, page
from ui.api.problems import REQUEST_BODY, Refused, not_found, responses
from ui.api.workspace import now, opened

if TYPE_CHECKING:
    from core.app import App

router = APIRouter(prefix="/scheduler", tags=["scheduler"], responses=responses(401, 403, 422, 503))

NEXT_TIMES = 5
EXAMPLE = {
    "name": "Export CDG Tracce to Kafka",
    "query": "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql",
    "connection": "A00-CDG-Collaudo",
    "scheduling_mode": "cron",
    "cron": "0 2 * * *",
    "enabled": True,
    "parameters": {"DATA": "{date-1}"},
    "export_format": "kafka",
    "kafka_config": {"topic": "pstt-traces", "message_key_field": "BARCODE"},
}


def _storable(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("this time is outside of the calendar") from None


Moment = Annotated[AwareDatetime, AfterValidator(_storable)]
Body = Annotated[str, Depends(read_text)]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The ETag of the version that was changed, or *.", examples=["*"])
]


@router.get("/scheduling")
def jobs(caller: Reader, limit: Limit = 100, offset: Offset = 0) -> shapes.Jobs:
    """The jobs by id, and the files that are no valid job."""
    with opened() as app:
        rows: list[tuple[JobFile, Job]] = []
        problems = []
        for slug in job_files(app.workspace):
            try:
                file = read_job_file(app.workspace, slug)
                rows.append((file, file.job))
            except NoSuchJob:  # deleted meanwhile
                continue
            except ConfigError as error:
                problems.append(shapes.FileProblem(text=error.text, remedy=error.remedy))
        shown = page(rows, limit, offset)
        stranded = unusable_jobs(app, (job for _, job in shown["items"]))
        items = [_row(app, *row, stranded.get(row[1].slug)) for row in shown["items"]]
        return shapes.Jobs(**shown | {"items": items}, problems=problems)


@router.post(
    "/scheduling",
    status_code=HTTPStatus.CREATED,
    responses={**responses(409, 413, 415), 201: ETAG},
    openapi_extra=takes(JobShape, example=EXAMPLE),
)
def create(
    caller: Changer,
    body: Body,
    request: Request,
    response: Response,
    id: Annotated[
        str | None, Query(max_length=100, description="The file's name without .job.json; none: made of the name.")
    ] = None,
) -> shapes.JobDetail:
    """Creates a job. Its file is written completely or not at all."""
    job = _job_of(body, "")
    job = replace(job, slug=id if id is not None else slug_of(job.name))
    with opened() as app:
        file = create_job(app.workspace, app.ledger, job, caller=caller, now=now())
        response.headers["Location"] = f"{request.scope.get('root_path', '')}/scheduler/scheduling/{file.slug}"
        return _detail(app, file, response)


@router.get("/scheduling/{id}", responses={**responses(404, 409), 200: ETAG, 304: {"description": "Not changed."}})
def job(
    caller: Reader, id: str, response: Response,
    known: Annotated[str | None, Header(alias="If-None-Match", description="ETag of what you have.")] = None,
) -> Any:  # fmt: skip
    """One job with its next scheduled times and its last run."""
    with opened() as app, _as_stored():
        file = read_job_file(app.workspace, id)
        if known is not None and _matches(known, file):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": _etag(file)})
        return _detail(app, file, response)


@router.put(
    "/scheduling/{id}",
    responses={**responses(404, 409, 412, 413, 415, 428), 200: ETAG},
    openapi_extra=takes(JobShape, example=EXAMPLE),
)
def change(caller: Changer, id: str, body: Body, response: Response, match: IfMatch = None) -> shapes.JobDetail:
    """Replaces a job, unless it was changed after you read it."""
    with opened() as app:
        seen = _seen(app, id, match)
        job = _job_of(body, id)
        file = replace_job(app.workspace, app.ledger, job, seen_sha256=seen, caller=caller, now=now())
        return _detail(app, file, response)


@router.delete("/scheduling/{id}", status_code=HTTPStatus.NO_CONTENT, responses=responses(404, 412, 428))
def delete(caller: Changer, id: str, match: IfMatch = None) -> None:
    """Deletes a job; its versions and its runs are kept."""
    with opened() as app:
        seen = _seen(app, id, match)
        delete_job(app.workspace, app.ledger, id, seen_sha256=seen, caller=caller, now=now())


@router.post("/scheduling/{id}/enable", responses=responses(404, 409))
def enable(caller: Changer, id: str) -> shapes.Switched:
    """Enables a job; its calendar begins now, without the times that were missed."""
    return _switch(caller, id, enabled=True)


@router.post("/scheduling/{id}/disable", responses=responses(404, 409))
def disable(caller: Changer, id: str) -> shapes.Switched:
    """Disables a job; a run in progress continues."""
    return _switch(caller, id, enabled=False)


@router.post(
    "/scheduling/{id}/run",
    status_code=HTTPStatus.ACCEPTED,
    response_model=shapes.Asked,
    responses=responses(404, 409, 413, 415),
    openapi_extra=takes(shapes.RunShape, required=False),
)
def run(
    caller: MessageSender,
    id: str,
    asked: Annotated[shapes.RunShape, Depends(document(shapes.RunShape, optional=True))],
    request: Request,
    key: IdempotencyKey = None,
) -> Response:
    """Asks the runner to run a job now; without a runner the request waits for one."""
    at = _scheduled_time(asked.at)
    with opened() as app, _as_stored():
        job = read_job_file(app.workspace, id).job

        def do() -> tuple[int, dict[str, Any], dict[str, str]]:
            asked_for = ask_for_run(
                app,
                job.slug,
                at=at,
                params=asked.parameters,
                caller=caller,
                now=now,
                dry_run=asked.dry_run,
                again=asked.again,
            )
            place = f"{request.scope.get('root_path', '')}/scheduler/requests/{asked_for['request_id']}"
            return HTTPStatus.ACCEPTED, asked_for, {"Location": place}

        return idempotent(app.workspace, caller, key, f"run {id}", asked.model_dump(), do)


@router.get("/requests/{number}", responses=responses(404))
def request_(caller: Reader, number: int) -> shapes.Asked:
    """The state and the result of a request to the runner."""
    with opened() as app:
        try:
            if not 0 < number < 2**63:
                raise ConfigError(f"there is no request {str(number)[:30]}")
            found = app.ledger.requests.get(number)
        except ConfigError as error:
            raise not_found(error) from None
        run_id = app.ledger.scheduled_runs.run_of_request(number)
    return shapes.Asked(
        request_id=found.request_id, state=found.state, answer=found.answer and said(found.answer), run_id=run_id
    )


@router.get("/history")
@router.get("/runs")
def runs(
    caller: Reader,
    job: Annotated[str | None, Query(max_length=300, description="Its id.")] = None,
    state: Annotated[
        list[RunState | Verdict] | None, Query(description="States, or verdicts as people see them.")
    ] = None,
    since: Annotated[Moment | None, Query(description="Scheduled at or after it.")] = None,
    until: Annotated[Moment | None, Query(description="Scheduled before it.")] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> shapes.Runs:
    """The runs, the newest first; those that are running with their progress."""
    with opened() as app:
        found, total = app.ledger.history.page(
            job=job, states=state or (), since=since, until=until, limit=limit, offset=offset
        )
        progress = ProgressFiles(app.workspace).of_runs(found)
    items = [_run_row(run, progress.get(run.run_id)) for run in found]
    return shapes.Runs(items=items, total=total, limit=limit, offset=offset)


@router.get("/runs/{run_id}", responses=responses(404))
def run_(caller: Reader, run_id: str) -> shapes.RunRow:
    """One run, with its verdict; its progress while it is running, and when it is tried again."""
    with opened() as app:
        try:
            found = app.ledger.run(run_id)
        except ConfigError as error:
            raise not_found(error) from None
        progress = ProgressFiles(app.workspace).of_runs([found]).get(found.run_id)
        retry = next_attempt(app, found)
    if found.run_id != run_id:
        raise not_found(ConfigError(f"there is no run {run_id!r}", remedy="give all of the run's id"))
    return _run_row(found, progress, retry)


def _run_row(run: Run, progress: RunProgress | None, retry: NextAttempt | None = None) -> shapes.RunRow:
    return shapes.RunRow.model_validate(run_document(run, progress, retry))


def _row(app: App, file: JobFile, job: Job, error: ConfigError | None) -> shapes.JobRow:
    return shapes.JobRow(
        id=job.slug,
        name=job.name,
        enabled=job.enabled,
        scheduling_mode=job.scheduling_mode,
        cron=job.cron,
        timezone=job.timezone,
        topic=job.kafka_config.topic if job.export_format == "kafka" else None,
        next_scheduled_at=next(iter(next_scheduled_times(job, now(), 1)), None) if job.enabled else None,
        last_run=_last_run(app, job.slug),
        problem=error.text if error else None,
        etag=_etag(file),
    )


def _detail(app: App, file: JobFile, response: Response) -> shapes.JobDetail:
    job = file.job
    response.headers["ETag"] = _etag(file)
    return shapes.JobDetail(
        id=file.slug,
        job=JobShape.model_validate(parse_json_file(file.path, file.text).document),
        next_scheduled_times=next_scheduled_times(job, now(), NEXT_TIMES) if job.enabled else [],
        last_run=_last_run(app, file.slug),
        problems=_problems(app, file, job),
    )


def _problems(app: App, file: JobFile, job: Job) -> list[shapes.FileProblem]:
    try:
        if apart.has_large_query(app.workspace, job):
            found = apart.job_findings(app.workspace, file)
        else:
            found = check_job(app.workspace, job, app.connections, app.settings)
    except PsttError as error:  # of connections.json, not of this job
        return [shapes.FileProblem(text=error.text, remedy=error.remedy)]
    return [shapes.FileProblem(text=f"{one.where}: {one.text}", remedy=one.remedy) for one in found]


def _last_run(app: App, slug: str) -> shapes.LastRun | None:
    newest = next(iter(app.ledger.history.newest(slug, 1)), None)
    if newest is None:
        return None
    return shapes.LastRun(run_id=newest.run_id, state=newest.state, scheduled_at=newest.scheduled_at)


def _switch(caller: Caller, id: str, *, enabled: bool) -> shapes.Switched:
    with opened() as app, _as_stored():
        job = read_job_file(app.workspace, id).job
        changed = set_job_enabled(app.workspace, app.ledger, job.slug, enabled=enabled, caller=caller, now=now())
    word = "enabled" if enabled else "disabled"
    answer = f'job "{job.name}" is {word}' if changed else f'job "{job.name}" was {word} before'
    return shapes.Switched(id=job.slug, enabled=enabled, changed=changed, answer=said(answer))


def _job_of(body: str, slug: str) -> Job:
    """Reads the job in a request; reports every problem of it."""
    job, problems = checked_job(REQUEST_BODY, body)
    if job is None or problems:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, problems[0], errors=problems)
    return replace(job, slug=slug)


@contextmanager
def _as_stored() -> Iterator[None]:
    """Responds to a problem of the stored file with 409: the request itself is valid."""
    try:
        yield
    except NoSuchJob:
        raise
    except ConfigError as error:
        if error.file is None:
            raise
        raise Refused(HTTPStatus.CONFLICT, error) from None


def _etag(file: JobFile) -> str:
    return f'"{file.sha256}"'


def _matches(header: str, file: JobFile) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or _etag(file) in tags


def _seen(app: App, id: str, match: str | None) -> str | None:
    """Returns the hash of the version that the caller changed; it is compared again, under the lock, when writing."""
    file = read_job_file(app.workspace, id)
    match = required_match(match, changed="the job since you read it", source="the job")
    if match.strip() == "*":
        return None
    require_seen(f'job "{id}"', file.sha256, file.sha256 if "W/" not in match and _matches(match, file) else "")
    return file.sha256


def _scheduled_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or not 2000 <= moment.year < 2200:
        raise ConfigError(
            "`at` is not a time", remedy="write it as 2026-01-17T02:00 or 2026-01-17T02:00:00+01:00", key="at"
        )
    return moment
