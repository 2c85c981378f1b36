"""Fields that the forms of databases and clusters share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import streamlit as st

from core.admin.edit_jobs import slug_of
from core.errors import ConfigError
from core.workspace.connections import CLUSTER_SECRETS
from core.workspace.secrets import REFERENCES, is_reference, is_remote
from ui.components.text import plain
from ui.language import t
from ui.views.connections.cards import secret_place


def more_keys(entry: dict[str, Any], keys: Sequence[str], fields: AbstractSet[str]) -> None:
    """A text of the keys that have no field of their own, one a line; sets them in the entry."""
    own = {key: value for key, value in entry.items() if key not in fields}
    free = [key for key in keys if key not in fields]
    with st.expander(t("More keys"), expanded=bool(own)):
        text = st.text_area(
            t("One a line: key = value"),
            value="\n".join(f"{key} = {as_typed(value)}" for key, value in own.items()),
            placeholder=f"{free[0]} = …",
            key="c_more",
        )
        st.caption(plain(", ".join(free)))
    for key in own:
        del entry[key]
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(line[:60], why=t("a line without ="), remedy=t("write it as key = value"))
        if key.strip() in fields:  # a password typed here would be stored in the file in clear text
            raise ConfigError(key.strip(), why=t("it has a field of its own in this form"))
        if key.strip() in CLUSTER_SECRETS and not is_reference(value.strip()):
            raise ConfigError(
                key.strip(), why=t("it is a secret"), remedy=t("write a reference: {kinds}", kinds=REFERENCES)
            )
        entry[key.strip()] = typed(value.strip())


def typed(text: str) -> Any:
    """Returns a number, true, false or text; text that looks like one of those has to be in quotes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def as_typed(value: Any) -> str:
    """Returns the text from which `typed` makes that value."""
    if isinstance(value, str) and typed(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def text_fields(entry: dict[str, Any], fields: Sequence[tuple[str, str]]) -> None:
    """Draws a text field for each key and label, and sets the keys in the entry."""
    for place, words in fields:
        put(entry, place, st.text_input(words, value=str(entry.get(place) or ""), key=f"c_{place}").strip())


def put(entry: dict[str, Any], place: str, value: Any) -> None:
    """Sets a key; removes it where the value is empty."""
    if value in ("", None, False):
        entry.pop(place, None)
    else:
        entry[place] = value


def secret_file_name(name: str) -> str:
    """A file name for the password of that connection."""
    return slug_of(name) if name else "password"


def secret_field(old: str, file: str) -> tuple[str, str] | None:
    """The fields of a password, which can be written and never read.

    Returns:
        Its reference, and the value that is to be stored there; None: it is not changed.
    """
    st.markdown(f"**{t('Password')}** · {plain(secret_place(old)) if old else t('none yet')}")
    keep, in_file, in_keyring, variable, elsewhere, none = (
        t("leave it as it is"),
        t("store it in a file for this account only"),
        t("store it in the keyring of this account"),
        t("it is in an environment variable"),
        t("it is in a vault, or a command prints it"),
        t("there is none"),
    )
    how = st.selectbox(t("Where"), [keep, in_file, in_keyring, variable, elsewhere, none], key="c_secret_how")
    if how == keep:
        return None
    if how == none:
        return "", ""
    if how == variable:
        name = st.text_input(t("Name of the variable"), key="c_secret_env").strip()
        return (f"env:{name}" if name else ""), ""
    if how == elsewhere:
        reference = st.text_input(t("vault:PATH#KEY or exec:COMMAND"), key="c_secret_remote").strip()
        if reference and not is_remote(reference):
            raise ConfigError(t("write vault:PATH#KEY or exec:COMMAND"))
        return reference, ""
    default = f"file:{file}" if how == in_file else f"keyring:pstt/{file.rpartition('/')[2]}"
    reference = st.text_input(t("Stored as"), value=default, key=f"c_secret_reference_{how == in_file}").strip()
    value = st.text_input(
        t("Password, is never shown again"), type="password", key="c_secret_value", autocomplete="new-password"
    )
    return reference, value
