"""The form of a job: what is sent, where and when, each field with its problem below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args
from zoneinfo import available_timezones

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.errors import ConfigError, PsttError
from core.model import job as job_model
from ui import data
from ui.components.problem import guarded, problem
from ui.components.text import plain
from ui.data.jobs import cluster_choices, query_names
from ui.language import t, translated
from ui.views.jobs.form_state import FIELDS, field_key
from ui.views.jobs.incremental import incremental_fields
from ui.views.jobs.parameters import parameter_fields

if TYPE_CHECKING:
    from core.app import App


class JobForm:
    """The fields of the form, each with an empty element below it for its problem."""

    def __init__(self, *, disabled: bool) -> None:
        self.slots: dict[str, DeltaGenerator] = {}
        self.calendar: DeltaGenerator = st.container()
        self._disabled = disabled

    def text(self, place: str, label: str, help_: str | None = None, placeholder: str | None = None) -> None:
        """A text of one line."""
        st.text_input(label, key=field_key(place), help=help_, placeholder=placeholder, disabled=self._disabled)
        self.slots[place] = st.empty()

    def lines(self, place: str, label: str, help_: str, placeholder: str) -> None:
        """A text of several lines."""
        st.text_area(
            label, key=field_key(place), help=help_, placeholder=placeholder, height=88, disabled=self._disabled
        )
        self.slots[place] = st.empty()

    def number(self, place: str, label: str, help_: str | None = None, placeholder: str | None = None) -> None:
        """A whole number, or none."""
        step = 1.0 if place in ("timeout_s", "incremental.delay_s", "incremental.look_back_s") else 1
        st.number_input(
            label,
            key=field_key(place),
            step=step,
            help=help_,
            placeholder=placeholder,
            value=None,
            disabled=self._disabled,
        )
        self.slots[place] = st.empty()

    def flag(self, place: str, label: str, help_: str | None = None) -> None:
        """Yes or no."""
        st.checkbox(label, key=field_key(place), help=help_, disabled=self._disabled)
        self.slots[place] = st.empty()

    def choice(self, place: str, label: str, options: Sequence[Any], words: Mapping[Any, str] | None = None) -> None:
        """One of several options. The value of the file is among them, even if it is not offered any more."""
        now = st.session_state.get(field_key(place))
        known = [*options] if now in options else [*options, now]
        st.selectbox(
            label,
            known,
            key=field_key(place),
            format_func=lambda option: (words or {}).get(option, str(option)),
            disabled=self._disabled,
        )
        self.slots[place] = st.empty()

    def show_problems(self, problems: Sequence[ConfigError]) -> list[ConfigError]:
        """Shows each problem below its field. Returns those that belong to no field."""
        without_field = []
        for error in problems:
            place = error.key
            while place and place not in self.slots:
                place = place.rpartition(".")[0]
            if place:
                self.slots[place].error(one_line_parts(error))
            else:
                without_field.append(error)
        return without_field


def one_line_parts(error: PsttError) -> str:
    """The parts of a problem, one a line, as Markdown."""
    parts = [error.what, error.why, error.remedy]
    return "  \n".join(plain(translated(part)) for part in parts if part)


def what_fields(form: JobForm) -> None:
    """The first column: query, connection, parameters, rows and types, expectations."""
    with data.opened() as app:
        databases = database_names(app)
    form.text("name", t("Name"))
    form.choice("query", t("Query"), query_names())
    form.choice("connection", t("Database connection"), databases)
    guarded(parameter_fields)()
    incremental_fields(form, _zones())
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


def database_names(app: App) -> list[str]:
    """The database connections; a problem of connections.json is shown."""
    try:
        return list(app.connections.database_names)
    except ConfigError as error:
        problem(error)
        return []


def where_fields(form: JobForm) -> None:
    """The second column: topic or file, and e-mail."""
    if st.session_state[field_key("export_format")] == "kafka":
        _to_topic(form)
    else:
        _to_file(form)
    with st.expander(t("E-mail after a run")):
        form.text("email_notification.recipients", t("Recipients"), t("Several are separated by commas."))
        form.flag("email_notification.on_failure", t("when it failed"))
        form.flag("email_notification.on_success", t("when it succeeded"))


def keep_hidden_fields(form: JobForm) -> None:
    """Keeps the values of fields that are not drawn for this kind of job: Streamlit would drop them."""
    for place in FIELDS:
        if place not in form.slots and field_key(place) in st.session_state:
            st.session_state[field_key(place)] = st.session_state[field_key(place)]


def _to_topic(form: JobForm) -> None:
    clusters, default_topic = cluster_choices()
    form.flag("kafka_config.enabled", t("Sending is on"))
    form.text("kafka_config.topic", t("Topic"), placeholder=default_topic or t("the cluster's default topic"))
    form.choice("kafka_config.cluster", t("Cluster"), ["", *clusters], {"": t("that of the connection's environment")})
    form.text(
        "kafka_config.message_key_field",
        t("Key: column or columns"),
        t("Several are separated by commas; upper and lower case are the same."),
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
    with st.expander(t("In parts")):
        _parts(form)
    with st.expander(t("Message in detail")):
        form.text("key_separator", t("Between several key columns"))
        form.number("kafka_config.batch_size", t("Messages a batch"), placeholder=t("that of the cluster"))
        form.lines(
            "headers",
            t("More headers"),
            t("One header a line; {COLUMN} is the value of that column."),
            "source = cdg\noffice = {TRACK_OFFICE}",
        )
        form.text(
            "kafka_config.timestamp_field",
            t("Time of the record: column"),
            t("Without a time zone it is in that of the job; NULL is the time of sending."),
            placeholder=t("the time of sending"),
        )
        form.flag(
            "kafka_config.traceparent",
            t("Trace context in each message"),
            t("Header traceparent (W3C), if traces are sent: docs/LINEAGE.md."),
        )
    _format_of_messages(form)
    _partitions_of_topic(form)


def _format_of_messages(form: JobForm) -> None:
    with st.expander(t("Format, envelope and schema")):
        names = {
            "json": "JSON",
            "avro": "Avro",
            "protobuf": "Protobuf",
            "json_schema": "JSON Schema",
            "text": t("text"),
        }
        form.choice("value_format", t("Format of the value"), get_args(job_model.ValueFormat), names)
        form.choice("key_format", t("Format of the key"), get_args(job_model.KeyFormat), names)
        form.choice(
            "envelope",
            t("Around the row"),
            get_args(job_model.EnvelopeKind),
            {
                "pstt": t("data and metadata"),
                "none": t("nothing"),
                "cloudevents": t("the attributes of CloudEvents"),
                "connect": t("schema and payload of Kafka Connect"),
            },
        )
        form.text(
            "null_value_when",
            t("A row is sent as a tombstone when"),
            t("Consumers and compacted topics delete what they know of its key."),
            placeholder="DELETED = 'Y'",
        )
        st.caption(t("Every format but JSON and text needs the schema_registry of its cluster."))
        form.text("schemas.name", t("Full name of the record"), placeholder="it.example.Parcel")
        form.choice(
            "schemas.subject",
            t("Subject in the registry"),
            get_args(job_model.SubjectStrategy),
            {"topic": t("of the topic"), "record": t("of the record"), "topic_record": t("of topic and record")},
        )
        form.text("schemas.value_file", t("File with the schema of the value"), placeholder=t("made from the columns"))
        form.text("schemas.key_file", t("File with the schema of the key"), placeholder=t("made from the columns"))
        form.choice(
            "cloudevents.mode",
            t("Attributes of CloudEvents"),
            get_args(job_model.CloudEventsMode),
            {"binary": t("are headers"), "structured": t("are in the value, with the row")},
        )
        form.text("cloudevents.source", t("Source of the events"), placeholder="/pstt/CONNECTION/QUERY")
        form.text("cloudevents.type", t("Type of the events"), placeholder="pstt.JOB")


def _partitions_of_topic(form: JobForm) -> None:
    with st.expander(t("Topic and its partitions")):
        form.choice(
            "kafka_config.partitioner",
            t("A message goes to the partition"),
            get_args(job_model.Partitioner),
            {
                "murmur2": t("of its key, as with Java"),
                "column": t("of a column's value"),
                "fixed": t("with this number"),
                "round_robin": t("that is next in turn"),
            },
        )
        partitioner = st.session_state[field_key("kafka_config.partitioner")]
        if partitioner == "column":
            form.text("kafka_config.partition_field", t("Column or columns that decide the partition"))
        if partitioner == "fixed":
            form.number("kafka_config.partition", t("Number of the partition, from 0"))
        st.caption(t("If the topic does not exist, the first run creates it like this; later it is only compared."))
        form.number("kafka_config.create_topic.partitions", t("Partitions"), placeholder=t("the topic is not created"))
        form.number("kafka_config.create_topic.replication", t("Replicas"), placeholder=t("as the cluster decides"))
        form.lines(
            "kafka_config.create_topic.config",
            t("Settings of the topic"),
            t("One setting a line."),
            "retention.ms = 604800000",
        )


def _parts(form: JobForm) -> None:
    """How the query is split, and whether messages of a key keep their order."""
    form.text(
        "partitions.column",
        t("Split the query by column"),
        t("Several processes then read and send its parts. Empty: it is not split."),
    )
    form.number("partitions.count", t("Number of parts"))
    form.choice(
        "partitions.by",
        t("Each part has"),
        get_args(job_model.PartitionBy),
        {"range": t("a range of a number, a date or a time"), "hash": t("rows by a hash of the column")},
    )
    form.choice(
        "order",
        t("Messages of one key"),
        get_args(job_model.MessageOrder),
        {"key": t("keep their order"), "none": t("may be sent in another order")},
    )


def _to_file(form: JobForm) -> None:
    form.text(
        "output",
        t("File name below exports/"),
        "{query} {connection} {job} {date:%Y%m%d}",
        placeholder="{query}_{connection}_{date:%Y%m%d}.xlsx",
    )
    if st.session_state[field_key("export_format")] != "csv":
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


def when_fields(form: JobForm) -> None:
    """The third column: calendar, time zone, catch-up."""
    form.flag("enabled", t("Enabled"))
    form.choice(
        "scheduling_mode",
        t("It runs"),
        get_args(job_model.SchedulingMode),
        {"cron": t("by a calendar (cron)"), "interval": t("every so many seconds"), "manual": t("only when asked")},
    )
    mode = st.session_state[field_key("scheduling_mode")]
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
        form.number(
            "keep_sends_days",
            t("Single sends are kept for so many days"),
            t("Older ones are counted by day. 0: for ever."),
            placeholder=t("as the settings say"),
        )


def _zones() -> list[str]:
    """All time zones, those used most first."""
    usual = ["Europe/Rome", "UTC"]
    return [*usual, *sorted(available_timezones() - set(usual))]
