"""The registry of channels: `mail`, and one type for each URL scheme. A new type is its own file and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from core.errors import ConfigError
from core.model.connection import UNREAD, Secret
from core.notify.apprise_channel import AppriseChannel
from core.notify.delivery import MAIL, Channel
from core.notify.mail_channel import MailChannel
from core.notify.smtp import MailServer
from core.workspace.json_file import nearest
from core.workspace.secrets import resolve_secret

__all__ = ["CHANNEL_TYPES", "channel_factory", "channel_problem"]

ANY_SCHEME = ""
CHANNEL_TYPES: dict[str, Callable[[str, Secret], Channel]] = {ANY_SCHEME: AppriseChannel}
"""URL scheme → makes the channel from its name and URL; `ANY_SCHEME` takes the URLs of all other schemes."""


def channel_factory(
    server: Callable[[], MailServer | None],
    channels: Callable[[], Mapping[str, str]],
    variables: Mapping[str, str],
    root: Path,
) -> Callable[[str], Channel]:
    """Returns a function from a channel's name to the channel; it raises ConfigError if there is none of that name.

    Args:
        server: Returns the mail server; None if there is none.
        channels: Returns name → URL or reference, as alerts.json has them.
        variables: The environment and `.env`, to resolve references.
        root: The workspace.
    """

    def channel_of(name: str) -> Channel:
        if name == MAIL:
            return MailChannel(server())
        known = channels()
        if name not in known:
            raise ConfigError(f'there is no channel "{name}" in alerts.json', remedy=nearest(name, known))
        return _channel_by_url(name, resolve_secret(known[name], variables, root))

    return channel_of


def channel_problem(name: str, reference: str, variables: Mapping[str, str], root: Path) -> ConfigError | None:
    """Returns why a channel of alerts.json cannot work; contacts nothing. None: nothing is known to be wrong."""
    try:
        url = resolve_secret(reference, variables, root, contact=False)
        if url is not UNREAD:
            _channel_by_url(name, url).check()
    except ConfigError as error:
        return error
    return None


def _channel_by_url(name: str, url: Secret) -> Channel:
    scheme = url.reveal().partition(":")[0].lower()
    return CHANNEL_TYPES.get(scheme, CHANNEL_TYPES[ANY_SCHEME])(name, url)
