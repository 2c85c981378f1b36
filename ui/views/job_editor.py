"""The editor of one job: what, where and when in three columns, the messages it would make, its JSON, its SQL, its versions.

The form holds what a person has typed; what it would be as a file is made anew at each drawing and looked at with the
code of `python -m core check`, so that a problem stands beside its field before anything is saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.admin.edit_files import LARGEST_QUERY_BYTES
from core.admin.edit_jobs import NewerEdit, slug_of
from core.calendar.cron import next_scheduled_times, previous_scheduled_time
from core.calendar.describe import describe_calendar
from core.calendar.templates import EXAMPLES
from core.errors import ConfigError, PsttError
from core.formatting import short_value
from core.model import job as job_model
from core.model.job import Job
from core.model.query import Parameter
from core.model.run import Plan
from core.sql.values import as_text
from ui import changes, data
from ui.access import may
from ui.components.difference import show_difference
from ui.components.links import go, link
from ui.components.problem import guarded, problem
from ui.components.runner_requests import progress
from ui.components.tables import choose, table
from ui.components.text import plain
from ui.data.jobs import cluster_choices, query_names
from ui.data.status import workspace_status
from ui.formats import clock, day, moment, number, size
from ui.language import current, t, tn

__all__ = ["moment_words", "moments", "parameters_of", "show", "show_new"]

SHOWN_TIMES = 5
PREVIEW_ROWS = 20
SHOWN_SQL_BYTES = 300_000
"""A browser's text field gets slow beyond this; the file itself may be larger."""
TAB = "\\t"
"""How a tab is typed into a field."""
Kind = Literal["text", "kept", "number", "flag", "choice", "list", "pairs"]
"""`text`: empty is not given. `kept`: empty is a value."""
FIELDS: Mapping[str, Kind] = {
    "name": "kept",
    "query": "choice",
    "connection": "choice",
    "export_format": "choice",
    "types": "pairs",
    "decimals": "choice",
    "on_bad_row": "choice",
    "max_rejects": "number",
    "verify_count": "flag",
    "on_drift": "choice",
    "expect.rows.min": "number",
    "expect.rows.max": "number",
    "expect.learn": "flag",
    "expect.by": "text",
    "kafka_config.enabled": "flag",
    "kafka_config.topic": "text",
    "kafka_config.cluster": "text",
    "kafka_config.message_key_field": "list",
    "key_separator": "kept",
    "on_null_key": "choice",
    "kafka_config.batch_size": "number",
    "kafka_config.include_metadata": "flag",
    "delivery": "choice",
    "verify": "choice",
    "headers": "pairs",
    "output": "text",
    "csv.separator": "kept",
    "csv.decimal": "choice",
    "csv.encoding": "kept",
    "csv.bom": "flag",
    "csv.quote_all": "flag",
    "csv.line_end": "choice",
    "csv.date_format": "kept",
    "csv.datetime_format": "kept",
    "email_notification.on_success": "flag",
    "email_notification.on_failure": "flag",
    "email_notification.recipients": "list",
    "enabled": "flag",
    "scheduling_mode": "choice",
    "cron": "text",
    "interval_s": "number",
    "timezone": "choice",
    "catch_up": "choice",
    "max_catch_up": "number",
    "overlap": "choice",
    "timeout_s": "number",
}
SHOWN_VALUES = 20
_FILE, _PARAMETERS, _RAW, _SAVING, _THEIRS = "job_file", "job_parameters", "job_raw", "job_saving", "job_theirs"


def _key(place: str) -> str:
    return f"job:{place}"


# ── from the file into the form, and back ─────────────────────────────────────────────────────


def _load(slug: str) -> None:
    """Begins with the file as it stands."""
    file = changes.job_file(slug)
    st.session_state[_FILE] = file
    st.session_state[_RAW] = file.text
    found = changes.draft(slug, file.text)
    if found.job is not None and not found.problems:
        _fill(found.job)


def _fill(job: Job) -> None:
    from core.workspace.job_schema import JobShape
    from core.workspace.jobs import job_text

    document = JobShape.model_validate(json.loads(job_text(job))).model_dump()
    for place, kind in FIELDS.items():
        value: Any = document
        for step in place.split("."):
            value = value[step]
        st.session_state[_key(place)] = _shown(place, kind, value)
    st.session_state[_PARAMETERS] = {name.upper(): as_text(value) for name, value in job.parameters.items()}
    for name in [name for name in st.session_state if str(name).startswith(_key("parameter:"))]:
        del st.session_state[name]


def _shown(place: str, kind: Kind, value: Any) -> Any:
    if place == "csv.separator":
        return value.replace("\t", TAB)
    if kind == "list":
        return ", ".join([value] if isinstance(value, str) else value or [])
    if kind == "pairs":
        return "\n".join(f"{name} = {text}" for name, text in value.items())
    return "" if value is None and kind in ("text", "kept") else value


def _document() -> dict[str, Any]:
    """What the form says, as a job's file."""
    document: dict[str, Any] = {"parameters": dict(st.session_state.get(_PARAMETERS, {}))}
    for place, kind in FIELDS.items():
        value = _meant(place, kind, st.session_state.get(_key(place)))
        if value is None:
            continue
        *above, last = place.split(".")
        into = document
        for step in above:
            into = into.setdefault(step, {})
        into[last] = value
    return document


def _meant(place: str, kind: Kind, value: Any) -> Any:
    if place == "csv.separator":
        return (value or "").replace(TAB, "\t")
    if kind == "text":
        return value.strip() or None if value else None
    if kind == "list":
        parts = [part.strip() for part in (value or "").split(",") if part.strip()]
        if place == "kafka_config.message_key_field":
            return parts[0] if len(parts) == 1 else parts or None
        return parts
    if kind == "pairs":
        lines = [line.partition("=") for line in (value or "").splitlines() if line.strip()]
        return {name.strip(): text.strip() for name, _, text in lines}
    if kind == "number" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# ── the view ──────────────────────────────────────────────────────────────────────────────────


def show(slug: str) -> None:
    """Draws the editor of a job."""
    link("jobs", t("all jobs"), icon=":material/arrow_back:")
    file = st.session_state.get(_FILE)
    if file is None or file.slug != slug or _RAW not in st.session_state:
        _load(slug)
    file = st.session_state[_FILE]
    as_stored = changes.draft(slug, file.text)
    if as_stored.job is None or as_stored.problems:
        _broken(slug, as_stored)
        return
    heading = st.empty()
    progress()
    form, raw, sql, versions = st.tabs([t("Job"), t("JSON"), t("SQL"), t("Versions")])
    with form:
        drafted = _form(slug)
    heading.title(plain(st.session_state[_key("name")] or slug), anchor=False)
    with raw:
        guarded(_raw)(slug)
    with sql:
        guarded(_sql)(st.session_state[_key("query")], st.session_state[_key("connection")])
    with versions:
        guarded(_versions)(slug)
    if st.session_state.get(_SAVING) and drafted.job is not None and not drafted.problems:
        _confirm_save(drafted.job)


def _broken(slug: str, found: changes.Draft) -> None:
    """The file on disk is no job: its text, to be mended."""
    st.title(plain(slug), anchor=False)
    st.markdown(t("This file is not a job as it stands. Mend it here; the form follows then."))
    for error in found.problems:
        problem(error)
    st.text_area(t("The file"), key=_RAW, height=420)
    drafted = changes.draft(slug, st.session_state[_RAW])
    if st.session_state[_RAW] != st.session_state[_FILE].text:
        for error in drafted.problems:
            problem(error)
    wrong = bool(drafted.problems)
    if st.button(t("Save"), key="save_broken", icon=":material/save:", disabled=wrong or not may("operator")):
        if drafted.job is not None:
            changes.save_job(drafted.job, st.session_state[_FILE].sha256)
            _discard()
            st.rerun()


class _Form:
    """Fields, each with room for its problem below it."""

    def __init__(self, *, disabled: bool) -> None:
        self.slots: dict[str, DeltaGenerator] = {}
        self.calendar: DeltaGenerator = st.container()
        self._disabled = disabled

    def text(self, place: str, label: str, help_: str | None = None, placeholder: str | None = None) -> None:
        """One line."""
        st.text_input(label, key=_key(place), help=help_, placeholder=placeholder, disabled=self._disabled)
        self.slots[place] = st.empty()

    def lines(self, place: str, label: str, help_: str, placeholder: str) -> None:
        """Several lines."""
        st.text_area(label, key=_key(place), help=help_, placeholder=placeholder, height=88, disabled=self._disabled)
        self.slots[place] = st.empty()

    def number(self, place: str, label: str, help_: str | None = None, placeholder: str | None = None) -> None:
        """A whole number, or none."""
        step = 1.0 if place == "timeout_s" else 1
        st.number_input(
            label, key=_key(place), step=step, help=help_, placeholder=placeholder, value=None, disabled=self._disabled
        )
        self.slots[place] = st.empty()

    def flag(self, place: str, label: str, help_: str | None = None) -> None:
        """Yes or no."""
        st.checkbox(label, key=_key(place), help=help_, disabled=self._disabled)
        self.slots[place] = st.empty()

    def choice(self, place: str, label: str, options: Sequence[Any], words: Mapping[Any, str] | None = None) -> None:
        """One of several; what the file says is among them, also where it is not there any more."""
        now = st.session_state.get(_key(place))
        known = [*options] if now in options else [*options, now]
        st.selectbox(
            label,
            known,
            key=_key(place),
            format_func=lambda option: (words or {}).get(option, str(option)),
            disabled=self._disabled,
        )
        self.slots[place] = st.empty()

    def tell(self, problems: Sequence[ConfigError]) -> list[ConfigError]:
        """Puts each problem below its field; those that have none."""
        homeless = []
        for error in problems:
            place = error.key
            while place and place not in self.slots:
                place = place.rpartition(".")[0]
            if place:
                self.slots[place].error(_short(error))
            else:
                homeless.append(error)
        return homeless


def _short(error: PsttError) -> str:
    parts = [error.what, error.why, error.remedy]
    return "  \n".join(plain(part) for part in parts if part)


def _form(slug: str) -> changes.Draft:
    form = _Form(disabled=not may("operator"))
    top = st.container()
    what, where, when = st.columns(3, gap="large")
    with what:
        st.subheader(t("What"), anchor=False)
        _what(form)
    with where:
        st.subheader(t("Where"), anchor=False)
        _where(form)
    with when:
        st.subheader(t("When"), anchor=False)
        _when(form)
    _keep(form)
    drafted = changes.draft(slug, json.dumps(_document(), ensure_ascii=False))
    with top:
        _save_row(drafted)
    homeless = form.tell(drafted.problems)
    with top:
        for error in homeless:
            st.error(_short(error), icon=":material/error:")
    with form.calendar:
        _next_times(drafted)
    if drafted.job is not None and not drafted.problems:
        with top:
            guarded(changes.binding_problem)(drafted.job, moments(drafted.job)[0])
        guarded(_preview)(drafted.job)
    return drafted


def _save_row(drafted: changes.Draft) -> None:
    changed = drafted.job is None or bool(drafted.problems) or _is_changed(drafted.job)
    with st.container(horizontal=True, vertical_alignment="center"):
        ready = changed and not drafted.problems and drafted.job is not None and may("operator")
        if st.button(t("Save …"), key="save", icon=":material/save:", disabled=not ready):
            st.session_state[_SAVING] = True
        st.button(t("Discard changes"), key="discard", on_click=_discard, disabled=not changed)
        words = t("changed, not saved") if changed else t("as it is stored")
        st.markdown(f":gray[{words}]", width="content")
        if drafted.problems:
            st.markdown(f"✘ {t('problems: {count}', count=len(drafted.problems))}", width="content")


def _is_changed(job: Job) -> bool:
    file = st.session_state[_FILE]
    return bool(changes.draft(file.slug, file.text).job != job)


def _discard() -> None:
    for name in (_FILE, _SAVING, _THEIRS):
        st.session_state.pop(name, None)


# ── what ──────────────────────────────────────────────────────────────────────────────────────


def _what(form: _Form) -> None:
    with data.opened() as app:
        databases = _databases(app)
    form.text("name", t("Name"))
    form.choice("query", t("Query"), query_names())
    form.choice("connection", t("Database connection"), databases)
    guarded(_parameters)()
    form.choice(
        "export_format",
        t("Makes"),
        get_args(job_model.ExportFormat),
        {"kafka": t("messages on a topic"), "excel": t("an Excel file"), "csv": t("a CSV file")},
    )
    with st.expander(t("Rows and types")):
        form.choice(
            "on_bad_row",
            t("A row that cannot be sent"),
            get_args(job_model.OnBadRow),
            {"reject": t("goes to the rejects, the others go on"), "fail": t("ends the run")},
        )
        form.number(
            "max_rejects",
            t("Rejects that are still green"),
            t("A run with more is complete with rejects: amber, and exit code 4."),
        )
        form.choice(
            "decimals",
            t("Numbers with decimals"),
            get_args(job_model.DecimalForm),
            {
                "number": t("JSON number, every digit kept"),
                "string": t("text, for readers that would lose digits"),
                "float": t("floating point"),
            },
        )
        form.lines(
            "types",
            t("Types of columns"),
            t("One column a line. Types: {types}", types=", ".join(get_args(job_model.TypeOverride))),
            "TRKDATE = date",
        )
        form.flag("verify_count", t("Compare with COUNT(*) in the same snapshot"))
    with st.expander(t("What a good day looks like")):
        form.number("expect.rows.min", t("At least so many rows"))
        form.number("expect.rows.max", t("At most so many rows"))
        form.flag("expect.learn", t("Without numbers: learn them from the same weekday of the last weeks"))
        form.text("expect.by", t("A success by this time of the day"), placeholder="07:00")
        form.choice(
            "on_drift",
            t("Other columns or types than before"),
            get_args(job_model.OnDrift),
            {"stop": t("stop the run"), "warn": t("warn and go on"), "ignore": t("ignore")},
        )


def _databases(app: Any) -> list[str]:
    try:
        return list(app.connections.database_names)
    except ConfigError as error:
        problem(error)
        return []


def _parameters() -> None:
    """The parameters that the SQL file asks for, each with what it would be at the next scheduled time."""
    query, connection = st.session_state[_key("query")], st.session_state[_key("connection")]
    given: dict[str, str] = st.session_state[_PARAMETERS]
    parsed = changes.parsed_query(query, connection)
    for note in parsed.notes:
        st.warning(plain(note))
    if parsed.parameters:
        examples = " ".join(f"`{example}`" for example in EXAMPLES)
        st.markdown(f":small[{t('Parameters of the query. Templates: {examples}', examples=examples)}]")
    else:
        st.caption(t("The query has no parameters."))
    drafted = changes.draft("draft", json.dumps(_document(), ensure_ascii=False))
    at, zone = _scheduled(drafted)
    for parameter in parsed.parameters:
        _parameter(parameter, given)
        (found,) = [p for p in changes.resolved_parameters(parsed, given, at, zone) if p.name == parameter.name]
        if found.problem:
            st.error(plain(found.problem))
        elif found.given is None and found.mandatory:
            st.error(plain(t("{name} is mandatory and has no value", name=found.name)))
        else:
            st.caption(f"→ {_bound(found)} {t('at {time}', time=moment(at, zone))}")
    for name in [name for name in given if name not in {p.name for p in parsed.parameters}]:
        st.warning(t("The query has no parameter {name}.", name=plain(name)))
        st.button(t("Take {name} out", name=plain(name)), key=f"without_{name}", on_click=given.pop, args=(name, None))


def _bound(found: changes.Resolved) -> str:
    """The value that is bound, or the first ones of a list and how many there are."""
    if not found.values:
        return f"**{plain(found.value)}**"
    shown = " · ".join(f"**{plain(one)}**" for one in found.values[:SHOWN_VALUES])
    more = " · …" if len(found.values) > SHOWN_VALUES else ""
    return f"{shown}{more} ({tn(len(found.values), '1 value', '{count} values', count=number(len(found.values)))})"


def _parameter(parameter: Parameter, given: dict[str, str]) -> None:
    key = _key(f"parameter:{parameter.name}")
    if key not in st.session_state:
        st.session_state[key] = given.get(parameter.name, "")
    star = t("mandatory") if parameter.mandatory else t("optional")
    several = t("a list, such as N,S; a value that holds a comma stands in quotes") if parameter.is_list else ""
    allowed = t("one of {values}", values=", ".join(parameter.allowed)) if parameter.allowed else ""
    text = st.text_input(
        f"{plain(parameter.name)} · {star}",
        key=key,
        help=plain(" · ".join(filter(None, [parameter.description, several, allowed]))) or None,
        placeholder=parameter.default if not parameter.mandatory else t("such as {date-1}"),
        disabled=not may("operator"),
    )
    if parameter.description:
        st.caption(plain(parameter.description))
    if text:
        given[parameter.name] = text
    else:
        given.pop(parameter.name, None)


def _scheduled(drafted: changes.Draft) -> tuple[datetime, str]:
    """The next scheduled time of what is typed; now, where that is not known."""
    zone = st.session_state[_key("timezone")]
    if drafted.job is None or drafted.problems:
        return data.now(), zone if zone in available_timezones() else "UTC"
    return moments(drafted.job)[0], drafted.job.timezone


# ── where ─────────────────────────────────────────────────────────────────────────────────────


def _where(form: _Form) -> None:
    if st.session_state[_key("export_format")] == "kafka":
        _to_topic(form)
    else:
        _to_file(form)
    with st.expander(t("E-mail after a run")):
        form.text("email_notification.recipients", t("Recipients"), t("Several are separated by commas."))
        form.flag("email_notification.on_failure", t("when it failed"))
        form.flag("email_notification.on_success", t("when it succeeded"))


def _keep(form: _Form) -> None:
    """What is not drawn for this kind of job keeps its value."""
    for place in FIELDS:
        if place not in form.slots and _key(place) in st.session_state:
            st.session_state[_key(place)] = st.session_state[_key(place)]


def _to_topic(form: _Form) -> None:
    clusters, default_topic = cluster_choices()
    form.flag("kafka_config.enabled", t("Sending is on"))
    form.text("kafka_config.topic", t("Topic"), placeholder=default_topic or t("the cluster's default topic"))
    form.choice("kafka_config.cluster", t("Cluster"), ["", *clusters], {"": t("that of the connection's environment")})
    form.text(
        "kafka_config.message_key_field",
        t("Key: column or columns"),
        t("Several are separated by commas; whatever their case."),
    )
    form.choice(
        "on_null_key",
        t("A row without a key"),
        get_args(job_model.OnNullKey),
        {
            "reject": t("goes to the rejects, the others go on"),
            "send": t("is sent without a key"),
            "fail": t("ends the run"),
        },
    )
    form.choice(
        "delivery",
        t("Delivery"),
        get_args(job_model.DeliveryGuarantee),
        {
            "at_least_once": t("at least once: never lost, seldom twice"),
            "exactly_once": t("exactly once: in transactions"),
        },
    )
    form.choice(
        "verify",
        t("Read back from the topic after each run"),
        get_args(job_model.VerifyMode),
        {
            "none": t("nothing"),
            "count": t("the number of messages"),
            "full": t("each message with its key and id"),
        },
    )
    form.flag("kafka_config.include_metadata", t("Metadata beside the data"))
    with st.expander(t("Message in detail")):
        form.text("key_separator", t("Between several key columns"))
        form.number("kafka_config.batch_size", t("Messages a batch"), placeholder=t("that of the cluster"))
        form.lines("headers", t("More headers"), t("One header a line."), "source = cdg")


def _to_file(form: _Form) -> None:
    form.text(
        "output",
        t("File name below exports/"),
        "{query} {connection} {job} {date:%Y%m%d}",
        placeholder="{query}_{connection}_{date:%Y%m%d}.xlsx",
    )
    if st.session_state[_key("export_format")] != "csv":
        return
    with st.expander(t("How the CSV is written"), expanded=True):
        form.text("csv.separator", t("Separator"))
        form.choice("csv.decimal", t("Decimal sign"), [",", "."])
        form.text("csv.encoding", t("Encoding"))
        form.flag("csv.bom", t("With the mark by which Excel knows UTF-8"))
        form.flag("csv.quote_all", t("Every value in quotes"))
        form.choice("csv.line_end", t("Line end"), ["\r\n", "\n"], {"\r\n": "Windows (CR LF)", "\n": "Unix (LF)"})
        form.text("csv.date_format", t("Dates as"), placeholder="%Y-%m-%d")
        form.text("csv.datetime_format", t("Dates with a time as"), placeholder="%Y-%m-%dT%H:%M:%S")


# ── when ──────────────────────────────────────────────────────────────────────────────────────


def _when(form: _Form) -> None:
    form.flag("enabled", t("Enabled"))
    form.choice(
        "scheduling_mode",
        t("It runs"),
        get_args(job_model.SchedulingMode),
        {"cron": t("by a calendar (cron)"), "interval": t("every so many seconds"), "manual": t("only when asked")},
    )
    mode = st.session_state[_key("scheduling_mode")]
    if mode == "cron":
        form.text("cron", t("Cron: minute hour day month weekday"), placeholder="0 2 * * *")
    if mode == "interval":
        form.number("interval_s", t("Seconds between two runs"))
    form.choice("timezone", t("Time zone"), _zones())
    form.calendar = st.container()
    with st.expander(t("Missed, late, long")):
        form.choice(
            "catch_up",
            t("Missed while the machine was off"),
            get_args(job_model.CatchUp),
            {"latest": t("the latest one runs"), "all": t("all of them run"), "none": t("none of them runs")},
        )
        form.number("max_catch_up", t("At most so many missed ones"))
        form.choice(
            "overlap",
            t("Due while it still runs"),
            get_args(job_model.Overlap),
            {"skip": t("it is left out"), "queue": t("it waits")},
        )
        form.number("timeout_s", t("Ends after so many seconds"), placeholder=t("never"))


def _zones() -> list[str]:
    """The usual ones first; all of them can be searched."""
    usual = ["Europe/Rome", "UTC"]
    return [*usual, *sorted(available_timezones() - set(usual))]


def _next_times(drafted: changes.Draft) -> None:
    """The calendar in words, the next fires with their offsets, and what becomes of missed ones."""
    job = drafted.job
    if job is None or any(
        error.key in ("cron", "timezone", "scheduling_mode", "interval_s") for error in drafted.problems
    ):
        return
    st.markdown(f"**{plain(describe_calendar(job, current()))}**")
    zone = ZoneInfo(job.timezone)
    lines = [
        f"- {plain(day(scheduled_run.astimezone(zone).date()))} {plain(clock(scheduled_run, job.timezone))} {plain(_offset(scheduled_run, zone))}"
        for scheduled_run in next_scheduled_times(job, data.now(), SHOWN_TIMES)
    ]
    if lines:
        st.markdown("\n".join(lines))
        st.caption(_catch_up(job))


def _offset(scheduled_run: datetime, zone: ZoneInfo) -> str:
    text = f"{scheduled_run.astimezone(zone):%z}"
    return f"UTC{text[:3]}:{text[3:]}"


def _catch_up(job: Job) -> str:
    if job.catch_up == "none":
        return t("If the machine was off, missed fires do not run; they are listed as skipped.")
    if job.catch_up == "all":
        return t(
            "If the machine was off, every missed fire runs, the newest {count} at most.",
            count=number(job.max_catch_up),
        )
    return t("If the machine was off, the latest missed fire runs once.")


def moments(job: Job) -> list[datetime]:
    """Scheduled times that a person may want to look at: the next one, the last one; now for a manual job."""
    at = data.now().replace(second=0, microsecond=0)
    found = [*next_scheduled_times(job, at, 1), previous_scheduled_time(job, at)]
    return [scheduled_run for scheduled_run in found if scheduled_run is not None] or [at]


def moment_words(job: Job, at: datetime) -> str:
    """`the last one, 17 Jan 2026 02:00`."""
    text = moment(at, job.timezone)
    if job.scheduling_mode == "manual":
        return t("now, {time}", time=text)
    return t("the next one, {time}", time=text) if at > data.now() else t("the last one, {time}", time=text)


def parameters_of(job: Job, at: datetime) -> None:
    """What the parameters of a job are at that time."""
    parsed = changes.parsed_query(job.query, job.connection)
    found = changes.resolved_parameters(parsed, job.parameters, at, job.timezone)
    if found:
        st.markdown(" · ".join(f"**{plain(p.name)}** = {plain(p.problem or short_value(p.value))}" for p in found))


# ── the messages it would make ────────────────────────────────────────────────────────────────


def _preview(job: Job) -> None:
    st.subheader(t("Preview"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        at = st.selectbox(
            t("For the scheduled time"),
            moments(job)[::-1],
            format_func=lambda chosen: moment_words(job, chosen),
            key="preview_at",
            width=340,
        )
        wanted = st.button(
            t("Show the first messages"),
            key="preview",
            icon=":material/visibility:",
            disabled=not may("operator"),
            help=t(
                "Asks the database, for {seconds} s at most; nothing is sent.", seconds=int(changes.PREVIEW_TIMEOUT_S)
            ),
        )
    if wanted:
        st.session_state.pop("preview_made", None)
        with st.spinner(t("asking the database …")):
            st.session_state["preview_made"] = (job, *changes.preview(job, at, PREVIEW_ROWS))
    made = st.session_state.get("preview_made")
    if made is None or made[0].slug != job.slug:
        return
    if made[0] != job:
        st.info(t("The job was changed since; show them again."), icon=":material/info:")
    _messages(*made)


def _messages(job: Job, plan: Plan, seen: Any) -> None:
    for warning in seen.warnings:
        st.warning(plain(warning), icon=":material/warning:")
    st.caption(
        " · ".join(f"{plain(name)} = {plain(short_value(value))}" for name, value in plan.query.values.items())
        or t("The query has no parameters.")
    )
    if job.export_format != "kafka":
        _file_rows(job, plan, seen)
        return
    rows = [
        {
            t("Row"): m.row_number,
            t("Key"): m.key if m.key is not None else "–",
            t("Bytes"): m.size_bytes,
            **_cells(m.value),
        }
        for m in seen.messages
    ]
    if not rows:
        return
    st.caption(t("Select a row to see the exact message."))
    chosen = choose(rows, "preview_rows", most_px=400)
    message = seen.messages[chosen or 0]
    with st.container(border=True):
        st.markdown(
            t(
                "Row {row} → {topic}, key {key}, {size}",
                row=number(message.row_number),
                topic=plain(plan.topic),
                key=plain(message.key if message.key is not None else "–"),
                size=size(message.size_bytes),
            )
        )
        st.caption("  \n".join(f"**{plain(name)}** {plain(text)}" for name, text in message.headers.items()))
        st.code(json.dumps(json.loads(message.value), ensure_ascii=False, indent=2), language="json", wrap_lines=True)
        with st.expander(t("Exactly as it is sent")):
            st.code(message.value, language=None, wrap_lines=True)


def _cells(value: str) -> dict[str, str]:
    return {
        name: cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
        for name, cell in json.loads(value, parse_float=str, parse_int=str)["data"].items()
    }


def _file_rows(job: Job, plan: Plan, seen: Any) -> None:
    from core.run.preview import file_rows

    names = [column.name for column in seen.columns]
    st.caption(f"{t('File')}: {plain(plan.output or '')}")
    rows = [dict(zip(names, cells, strict=True)) for cells in file_rows(seen, job)]
    if rows:
        table(rows, "preview_file", most_px=400)


# ── saving ────────────────────────────────────────────────────────────────────────────────────


def _confirm_save(job: Job) -> None:
    @st.dialog(t("Save this change?"), width="large", on_dismiss=_close_save)
    @guarded
    def confirm() -> None:
        file, theirs = st.session_state[_FILE], st.session_state.get(_THEIRS)
        if theirs is not None:
            _conflict(job, theirs)
            return
        show_difference(changes.job_text_of(file.slug, file.text), _text(job), t("stored"), t("new"))
        if st.button(t("Save"), key="confirm_save", icon=":material/save:"):
            _save(job, file.sha256)

    confirm()


def _close_save() -> None:
    st.session_state.pop(_SAVING, None)
    st.session_state.pop(_THEIRS, None)


def _save(job: Job, seen_sha256: str) -> None:
    try:
        saved = changes.save_job(job, seen_sha256)
    except NewerEdit as error:
        problem(error)
        st.session_state[_THEIRS] = changes.job_file(job.slug)
        _conflict(job, st.session_state[_THEIRS])
        return
    _close_save()
    st.session_state[_FILE] = saved
    st.toast(t("Saved"), icon=":material/check:")
    st.rerun()


def _conflict(job: Job, theirs: Any) -> None:
    """Somebody else has saved meanwhile: both versions, and what to do."""
    st.markdown(
        t("Somebody else has saved this job while you were changing it. Lines with + are yours, with - theirs.")
    )
    show_difference(changes.job_text_of(job.slug, theirs.text), _text(job), t("theirs"), t("yours"))
    with st.container(horizontal=True):
        if st.button(t("Take theirs, mine is lost"), key="take_theirs"):
            _close_save()
            _discard()
            st.rerun()
        if st.button(t("Save mine over theirs"), key="save_mine"):
            st.session_state.pop(_THEIRS)
            _save(job, theirs.sha256)


def _text(job: Job) -> str:
    from core.workspace.jobs import job_text

    return job_text(job)


# ── the other tabs ────────────────────────────────────────────────────────────────────────────


def _raw(slug: str) -> None:
    """For experts: the file itself."""
    st.text_area(t("The file"), key=_RAW, height=420, disabled=not may("operator"))
    drafted = changes.draft(slug, st.session_state[_RAW])
    for error in drafted.problems:
        problem(error)
    with st.container(horizontal=True):
        st.button(
            t("Put it into the form"),
            key="raw_to_form",
            on_click=lambda: _fill(drafted.job) if drafted.job is not None else None,
            disabled=bool(drafted.problems) or not may("operator"),
        )
        st.button(t("Take it from the form"), key="form_to_raw", on_click=_form_to_raw, args=(slug,))


def _form_to_raw(slug: str) -> None:
    st.session_state[_RAW] = changes.job_text_of(slug, json.dumps(_document(), ensure_ascii=False, indent=2))


def _versions(slug: str) -> None:
    with data.opened() as app:
        versions = app.ledger.job_versions.of_job(slug)
    if not versions:
        st.markdown(t("No earlier version is known yet; each one that is saved, or that a runner finds, is kept."))
        return
    zone = workspace_status().timezone
    rows = [
        {
            t("Seen"): moment(version.seen_at, zone, seconds=True),
            t("Saved by"): version.saved_by or t("found on disk"),
            t("Version"): version.sha256[:12],
        }
        for version in versions
    ]
    chosen = choose(rows, "job_versions", most_px=300)
    names = {version.sha256: row for version, row in zip(versions, rows, strict=True)}
    picked = st.selectbox(
        t("Compare with the form"),
        [version.sha256 for version in versions],
        index=chosen or 0,
        format_func=lambda sha256: " · ".join(names[sha256].values()),
        key="job_version",
    )
    version = next(version for version in versions if version.sha256 == picked)
    mine = changes.job_text_of(slug, json.dumps(_document(), ensure_ascii=False))
    show_difference(mine, changes.job_text_of(slug, version.document), t("in the form"), t("that version"))
    drafted = changes.draft(slug, version.document)
    for error in drafted.problems:
        problem(error)
    st.button(
        t("Bring it back into the form"),
        key="bring_back",
        icon=":material/history:",
        on_click=lambda: _fill(drafted.job) if drafted.job is not None else None,
        disabled=bool(drafted.problems) or not may("operator"),
        help=t("It is stored once you save it."),
    )


# ── SQL files, and new jobs ───────────────────────────────────────────────────────────────────


def _sql(name: str, connection: str) -> None:
    """One SQL file: its text, and another one in its place."""
    file = changes.query_file(name)
    key = f"sql:{name}:{file.sha256[:12]}"
    st.caption(f"queries/{plain(name)} · {size(len(file.content))} · sha256 {file.sha256[:12]}")
    uploaded = st.file_uploader(t("Another file in its place"), type=["sql"], key=f"upload:{key}", max_upload_size=50)
    if len(file.content) > SHOWN_SQL_BYTES:
        st.info(t("The file is too large for a text field; its first lines:"), icon=":material/info:")
        st.code(file.text[:5_000], language="sql")
        content = None
    else:
        typed = st.text_area(t("SQL"), value=file.text, key=key, height=420, disabled=not may("operator"))
        content = typed.encode() if typed != file.text else None
    if uploaded is not None:
        content = uploaded.getvalue()
    _checked_by(content, name, connection)
    if st.button(
        t("Save the SQL"),
        key="save_sql",
        icon=":material/save:",
        disabled=content is None or not may("operator"),
        help=t("{size} at most; whatever could write is refused.", size=size(LARGEST_QUERY_BYTES)),
    ):
        with st.spinner(t("reading the SQL …")):
            notes = changes.save_query(name, content or b"", connection, file.sha256)
        for note in notes:
            st.warning(plain(note))
        st.toast(t("Saved"), icon=":material/check:")
        st.rerun()


def _checked_by(content: bytes | None, name: str, connection: str) -> None:
    if content is not None:
        st.caption(t("It is checked as SQL of {connection} when it is saved.", connection=plain(connection)))


def show_new() -> None:
    """A new job from an SQL file, or the SQL files alone."""
    link("jobs", t("all jobs"), icon=":material/arrow_back:")
    if st.query_params.get("new") == "query":
        _queries()
        return
    st.title(t("New job"), anchor=False)
    with data.opened() as app:
        databases = _databases(app)
    if not databases:
        st.info(t("First a connection: say where the database is."), icon=":material/info:")
        link("connections", t("Connections"))
        return
    connection = st.selectbox(t("Database connection"), databases, key="new_connection")
    query = _chosen_query(connection)
    if not query:
        return
    taken = query.removesuffix(".sql")
    slug = st.text_input(t("File name, without .job.json"), value=slug_of(taken), key="new_slug")
    name = st.text_input(t("Name"), value=taken, key="new_name")
    st.caption(t("It is made switched off; key, topic and calendar follow in the editor."))
    if st.button(t("Make the job"), key="make_job", icon=":material/add:", disabled=not may("operator")):
        made = Job(slug.strip(), name.strip(), query, connection, enabled=False)
        changes.save_job(made, "")
        go("jobs", job=made.slug)


def _chosen_query(connection: str) -> str:
    names = query_names()
    new = t("upload a new SQL file")
    chosen = st.selectbox(t("Query"), [*names, new], key="new_query")
    if chosen != new:
        return chosen
    uploaded = st.file_uploader(t("SQL file"), type=["sql"], key="new_upload", max_upload_size=50)
    if uploaded is None:
        return ""
    if uploaded.name in names:
        st.warning(t("There is a query of that name; its text is kept. Change it in the editor's tab SQL."))
        return uploaded.name
    if st.button(t("Save the SQL"), key="save_new_sql", icon=":material/save:", disabled=not may("operator")):
        for note in changes.save_query(uploaded.name, uploaded.getvalue(), connection, ""):
            st.warning(plain(note))
        st.rerun()
    return ""


def _queries() -> None:
    st.title(t("Queries"), anchor=False)
    with data.opened() as app:
        databases = _databases(app)
    connection = st.selectbox(
        t("Checked as SQL of"), databases, key="sql_connection", placeholder=t("no connection yet")
    )
    names = query_names()
    new = t("a new one")
    name = st.selectbox(t("Query"), [*names, new], key="sql_name")
    if connection is None:
        return
    if name != new:
        guarded(_sql)(name, connection)
        return
    name = st.text_input(t("File name"), placeholder="tracce.sql", key="sql_new_name").strip()
    uploaded = st.file_uploader(t("SQL file"), type=["sql"], key="sql_new_upload", max_upload_size=50)
    typed = st.text_area(t("SQL"), key="sql_new_text", height=320)
    if st.button(t("Save the SQL"), key="save_new_sql", disabled=not may("operator"), icon=":material/save:"):
        content = uploaded.getvalue() if uploaded is not None else typed.encode()
        for note in changes.save_query(name or (uploaded.name if uploaded else ""), content, connection, ""):
            st.warning(plain(note))
        st.toast(t("Saved"), icon=":material/check:")
