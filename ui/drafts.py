"""Drafts: what a user typed and did not save is kept by the server and offered again.

A form says with `watch` what it holds. At the beginning of each drawing of the page `keep_typed` stores what differs from
the saved file: a click on another view also sends the text that was typed last, and that view draws no form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import streamlit as st

from core.errors import PsttError
from core.records.drafts import Draft, DraftKind, Drafts
from core.records.edits_file import EditsFile
from ui import access, data
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.formats import clock, moment
from ui.language import t, translated

__all__ = [
    "Draft",
    "Form",
    "Offer",
    "drop_draft",
    "forget",
    "has_unsaved_text",
    "keep_typed",
    "offer_draft",
    "show_problem",
    "watch",
]

FORMS, DECIDED, PROBLEM = "draft_forms", "draft_decided", "draft_problem"
"""Session keys: the forms that are open; those whose draft the user has accepted or thrown away; why none is kept."""


@dataclass
class Form:
    """A form that is open in this session."""

    kind: DraftKind
    name: str
    base_sha256: str
    """Of the file that is in the form."""
    stored: str
    """What `read` returns while nothing is changed."""
    read: Callable[[], str | None] = field(repr=False)
    """Returns what is typed, without secrets; None: the form is not drawn any more."""
    kept: str = ""
    """The draft as it was written last."""

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return self.kind, self.name


def watch(form: Form) -> None:
    """Notes a form that is open, so that what is typed into it is kept. One with the same base stays as it is."""
    forms: dict[tuple[str, str], Form] = st.session_state.setdefault(FORMS, {})
    known = forms.get(form.key)
    if known is None or (known.base_sha256, known.stored) != (form.base_sha256, form.stored):
        forms[form.key] = form


def is_watched(kind: DraftKind, name: str) -> bool:
    """Returns whether that form is open."""
    return (kind, name) in st.session_state.get(FORMS, {})


def watched(kind: DraftKind) -> list[str]:
    """Returns the names of the open forms of that kind."""
    return [name for other, name in st.session_state.get(FORMS, {}) if other == kind]


def forget(kind: DraftKind, name: str) -> None:
    """Ends the watch of a form; its draft stays."""
    st.session_state.get(FORMS, {}).pop((kind, name), None)
    st.session_state.get(DECIDED, set()).discard((kind, name))


def keep_typed() -> None:
    """Stores what is typed into the open forms and is not saved; drops the draft of a form that is as it is stored."""
    for form in list(st.session_state.get(FORMS, {}).values()):
        typed = form.read()
        if typed is None:
            forget(form.kind, form.name)
        elif typed == form.stored:
            if form.kept:
                drop_draft(form.kind, form.name)
        elif typed != form.kept:
            _save(form, typed)


def has_unsaved_text() -> bool:
    """Returns whether a form that is open differs from what is stored."""
    forms = st.session_state.get(FORMS, {}).values()
    return any((typed := form.read()) is not None and typed != form.stored for form in forms)


def _save(form: Form, typed: str) -> None:
    user = access.current_user().name
    draft = Draft(user, form.kind, form.name, form.base_sha256, typed, data.now())
    st.session_state.pop(PROBLEM, None)
    try:
        with _opened() as drafts:
            if not drafts.save(draft):
                st.session_state[PROBLEM] = t("the text is too large for a draft: save it before you leave")
    except PsttError as error:  # a full disk: the form itself goes on
        st.session_state[PROBLEM] = t("no draft is kept: {why}", why=translated(error.text))
    form.kept = typed


def drop_draft(kind: DraftKind, name: str) -> None:
    """Deletes the draft of a form: it was saved or thrown away."""
    form = st.session_state.get(FORMS, {}).get((kind, name))
    if form is not None:
        form.kept = ""
    try:
        with _opened() as drafts:
            drafts.drop(access.current_user().name, kind, name)
    except PsttError as error:
        st.session_state[PROBLEM] = translated(error.text)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the user has decided about a draft."""

    accepted: Draft | None = None
    """The draft that the user has just accepted."""
    is_open: bool = False
    """The question is drawn, and the form is not drawn before it is answered."""


def offer_draft(kind: DraftKind, name: str, base_sha256: str, difference: Callable[[Draft], None]) -> Offer:
    """Offers the draft of a form before the form is drawn.

    Args:
        kind: Of the form.
        name: Of the job, SQL file or entry.
        base_sha256: Of the file as it is now.
        difference: Draws how a draft differs from what is stored.

    Returns:
        The decision; neither accepted nor open where there is no draft, or it was decided before.
    """
    decided: set[tuple[str, str]] = st.session_state.setdefault(DECIDED, set())
    if (kind, name) in decided:
        return Offer()
    draft = _found(kind, name)
    if draft is None:
        decided.add((kind, name))
        return Offer()
    zone = workspace_status().timezone
    is_today = draft.saved_at.date() == data.now().date()
    time = clock(draft.saved_at, zone) if is_today else moment(draft.saved_at, zone)
    accepted = False
    with st.container(border=True, key="draft"):
        st.markdown(f"**{t('You have a draft of {time} that is not saved.', time=time)}**")
        if draft.base_sha256 != base_sha256:
            st.warning(
                t("The file was changed since you began it. When you save, both versions are shown."),
                icon=":material/warning:",
            )
        difference(draft)
        with st.container(horizontal=True):
            accepted = st.button(t("Go on with it"), key="draft_go_on", icon=":material/edit:")
            if st.button(t("Throw it away"), key="draft_drop", icon=":material/delete:"):
                drop_draft(kind, name)
                decided.add((kind, name))
                st.rerun()
    if not accepted:
        return Offer(is_open=True)
    decided.add((kind, name))
    return Offer(draft)


def show_problem() -> None:
    """Draws why no draft is kept, if that is so."""
    if why := st.session_state.get(PROBLEM):
        st.caption(f":material/warning: {plain(why)}")


def _found(kind: DraftKind, name: str) -> Draft | None:
    try:
        with _opened() as drafts:
            return drafts.get(access.current_user().name, kind, name, data.now())
    except PsttError as error:
        st.session_state[PROBLEM] = translated(error.text)
        return None


@contextmanager
def _opened() -> Iterator[Drafts]:
    with EditsFile(data.workspace().edits_file) as file:
        yield Drafts(file)
