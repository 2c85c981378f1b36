"""A broker far away: every connection to it goes through a proxy that delays."""

from __future__ import annotations

from collections.abc import Mapping

from tests.rigs.kafka import KafkaRig
from tests.rigs.proxy import Proxy


class DistantKafka(KafkaRig):
    """A broker that advertises the address of a delaying proxy, so that no client gets around it.

    Args:
        round_trip_s: How much later an answer comes: half of it in each direction.
        properties: As for KafkaRig.
    """

    def __init__(self, round_trip_s: float, *, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(properties=properties, for_long=True)
        self._delay_s = round_trip_s / 2
        self._proxy: Proxy | None = None

    @property
    def distant(self) -> str:
        """The address through the proxy."""
        assert self._proxy
        return f"{self._proxy.host}:{self._proxy.port}"

    def _settings(self, controller: str) -> dict[str, str]:
        settings = super()._settings(controller)
        host, port = self.plaintext.rsplit(":", 1)
        self._close_proxy()  # of a start on ports that were taken
        self._proxy = Proxy(host, int(port), delay_s=self._delay_s).__enter__()
        advertised = settings["advertised.listeners"]
        return settings | {"advertised.listeners": advertised.replace(self.plaintext, self.distant)}

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._close_proxy()

    def _close_proxy(self) -> None:
        if self._proxy:
            self._proxy.__exit__()
            self._proxy = None
