"""The parameters of a job's query, each with its value at the next scheduled time."""

from __future__ import annotations

import json
from datetime import datetime
from zoneinfo import available_timezones

import streamlit as st

from core.calendar.templates import EXAMPLES
from core.formatting import short_value
from core.model.job import Job
from core.model.query import Parameter
from ui import changes, data
from ui.access import may
from ui.components.text import plain
from ui.formats import moment, number
from ui.language import t, tn, translated
from ui.views.jobs.form_state import PARAMETERS, field_key, form_document
from ui.views.jobs.scheduled_times import suggested_times

__all__ = ["parameter_fields", "show_parameters"]
SHOWN_VALUES = 20


def parameter_fields() -> None:
    """A field for each parameter of the SQL file, with its value at the next scheduled time."""
    query, connection = st.session_state[field_key("query")], st.session_state[field_key("connection")]
    given: dict[str, str] = st.session_state[PARAMETERS]
    parsed = changes.parsed_query(query, connection)
    for note in parsed.notes:
        st.warning(plain(translated(note)))
    if parsed.parameters:
        examples = " ".join(f"`{example}`" for example in EXAMPLES)
        st.markdown(f":small[{t('Parameters of the query. Templates: {examples}', examples=examples)}]")
    else:
        st.caption(t("The query has no parameters."))
    drafted = changes.draft("draft", json.dumps(form_document(), ensure_ascii=False))
    at, zone = _next_scheduled_time(drafted)
    for parameter in parsed.parameters:
        _parameter(parameter, given)
        (found,) = [p for p in changes.resolved_parameters(parsed, given, at, zone) if p.name == parameter.name]
        if found.problem:
            st.error(plain(translated(found.problem)))
        elif found.given is None and found.mandatory:
            st.error(plain(t("{name} is mandatory and has no value", name=found.name)))
        else:
            st.caption(f"→ {_bound_value(found)} {t('at {time}', time=moment(at, zone))}")
    for name in [name for name in given if name not in {p.name for p in parsed.parameters}]:
        st.warning(t("The query has no parameter {name}.", name=plain(name)))
        st.button(t("Take {name} out", name=plain(name)), key=f"without_{name}", on_click=given.pop, args=(name, None))


def _bound_value(found: changes.Resolved) -> str:
    """The value that is bound; of a list its first values and their number."""
    if not found.values:
        return f"**{plain(found.value)}**"
    shown = " · ".join(f"**{plain(one)}**" for one in found.values[:SHOWN_VALUES])
    more = " · …" if len(found.values) > SHOWN_VALUES else ""
    return f"{shown}{more} ({tn(len(found.values), '1 value', '{count} values', count=number(len(found.values)))})"


def _parameter(parameter: Parameter, given: dict[str, str]) -> None:
    key = field_key(f"parameter:{parameter.name}")
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
        disabled=not may("change"),
    )
    if parameter.description:
        st.caption(plain(parameter.description))
    if text:
        given[parameter.name] = text
    else:
        given.pop(parameter.name, None)


def _next_scheduled_time(drafted: changes.Draft) -> tuple[datetime, str]:
    """The next scheduled time of the job in the form; the current time where that is not known."""
    zone = st.session_state[field_key("timezone")]
    if drafted.job is None or drafted.problems:
        return data.now(), zone if zone in available_timezones() else "UTC"
    return suggested_times(drafted.job)[0], drafted.job.timezone


def show_parameters(job: Job, at: datetime) -> None:
    """Shows the values of a job's parameters at that scheduled time."""
    parsed = changes.parsed_query(job.query, job.connection)
    found = changes.resolved_parameters(parsed, job.parameters, at, job.timezone)
    if found:
        st.markdown(
            " · ".join(f"**{plain(p.name)}** = {plain(translated(p.problem) or short_value(p.value))}" for p in found)
        )
