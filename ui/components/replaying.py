"""The dialog that sends a run again: all of it, what has not arrived, or the row of one key."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from core.model.run import Run
from core.run.replay import ReplayDestination, ReplayOptions
from ui import changes
from ui.components.problem import guarded, problem
from ui.components.runner_requests import follow
from ui.components.text import plain
from ui.data.resending import replay_options_of
from ui.formats import number
from ui.language import t, tn

__all__ = ["ask", "confirm"]

_WANTED = "replaying"


@dataclass(frozen=True)
class _Wanted:
    """What is to be sent again once the visitor confirms it."""

    run_id: str
    rejects_only: bool
    key: str


def ask(run_id: str, *, rejects_only: bool = False, key: str = "") -> None:
    """Opens the dialog, which `confirm` draws.

    Args:
        run_id: The run.
        rejects_only: Leaves out what was acknowledged.
        key: Only the row with this key; empty: all rows.
    """
    st.session_state[_WANTED] = _Wanted(run_id, rejects_only, key)


def confirm(run_id: str, *, is_file: bool = False) -> None:
    """Draws the dialog if it is open for this run; `is_file`: the run wrote a file."""
    wanted = st.session_state.get(_WANTED)
    if wanted and wanted.run_id == run_id:
        _confirm(wanted, is_file=is_file)


def _confirm(wanted: _Wanted, *, is_file: bool) -> None:
    title = t("Write the file again?") if is_file else t("Send again?")

    @st.dialog(title, on_dismiss=lambda: st.session_state.pop(_WANTED, None))
    @guarded
    def confirm() -> None:
        choice = replay_options_of(wanted.run_id)
        st.write(t("The query of this run is read again, for the same scheduled time and with the same parameters."))
        if choice.reads_otherwise:
            st.warning(_reads_otherwise(choice), icon=":material/warning:")
        to = _where_to(choice)
        place = choice.own if to == "run" else choice.of_job
        st.write(_what_readers_see(choice.run, _named(place.topic, place.cluster.name) if place else "", wanted))
        error = choice.own_problem if to == "run" else choice.job_problem
        if error:
            problem(error)
        if st.button(
            t("Yes, write it") if is_file else t("Yes, send"), key="confirm_replay", disabled=error is not None
        ):
            keys = [wanted.key] if wanted.key else []
            follow(changes.replay(wanted.run_id, rejects_only=wanted.rejects_only, keys=keys, to=to))
            st.session_state.pop(_WANTED, None)
            st.rerun()

    confirm()


def _reads_otherwise(choice: ReplayOptions) -> str:
    return t(
        "The job was changed since: it reads {query} from {connection} now, the run read {old_query} from {old_connection}.",
        query=plain(choice.job.query),
        connection=plain(choice.job.connection),
        old_query=plain(choice.run.query),
        old_connection=plain(choice.run.connection),
    )


def _where_to(choice: ReplayOptions) -> ReplayDestination:
    """The run's own topic and cluster, unless the visitor chooses those that the job has now."""
    if not choice.differs:
        return "run"
    own, now = choice.own, choice.of_job
    of_run = _named(own.topic, own.cluster.name) if own else _named(choice.run.topic, choice.run.cluster)
    of_job = _named(now.topic, now.cluster.name) if now else t("a file, or nowhere")
    words: dict[ReplayDestination, str] = {
        "run": t("where this run was sent: {place}", place=of_run),
        "job": t("where its job sends now: {place}", place=of_job),
    }
    chosen: ReplayDestination = st.radio(t("Send to"), list(words), format_func=lambda to: words[to], key="replay_to")
    return chosen


def _named(topic: str, cluster: str) -> str:
    """Topic and cluster, escaped for Markdown."""
    return t("{topic} on {cluster}", topic=plain(topic), cluster=plain(cluster))


def _what_readers_see(run: Run, place: str, wanted: _Wanted) -> str:
    if not place:
        return t("The file is written again, whole.")
    if wanted.key:
        return t(
            "Only the row with the key {key} is sent: readers of {place} see its message once more, with the message id that it had.",
            key=plain(wanted.key),
            place=place,
        )
    if wanted.rejects_only:
        return tn(
            run.acknowledged,
            "The 1 row that was acknowledged is left out: readers of {place} see only rows that have not arrived yet, so fix them in the database first.",
            "The {count} rows that were acknowledged are left out: readers of {place} see only rows that have not arrived yet, so fix them in the database first.",
            count=number(run.acknowledged),
            place=place,
        )
    return tn(
        run.acknowledged,
        "Readers of {place} see about 1 message, with the message id that it had, by which they can recognise it.",
        "Readers of {place} see about {count} messages, with the message ids that they had, by which they can recognise them.",
        count=number(run.acknowledged),
        place=place,
    )
