"""Gets the token or the Kerberos ticket of a login before a client connects: its failure is then one error with its cause."""

from __future__ import annotations

import os
from importlib.util import find_spec

from core.kafka.kerberos import require_ticket
from core.kafka.oauth import token_source
from core.kafka.probe import addresses
from core.kafka.security import uses_login
from core.model.connection import Cluster

__all__ = ["require_login"]


def require_login(cluster: Cluster) -> None:
    """Gets what the login of a cluster needs; does nothing for user and password.

    Raises:
        ConfigError: What answers is no token endpoint, or krb5.conf is wrong.
        BrokerUnavailable: The token endpoint or the key distribution centre does not answer.
        NotAuthorised: It refuses the client, the principal or the keytab.
    """
    if not uses_login(cluster):
        return
    if cluster.sasl_mechanism == "OAUTHBEARER":
        token_source(cluster).token()
    if cluster.sasl_mechanism == "GSSAPI" and _asks_itself(cluster):
        require_ticket(cluster, (host for host, _ in addresses(cluster.bootstrap_servers)))


def _asks_itself(cluster: Cluster) -> bool:
    """Returns False where librdkafka alone has the ticket: SSPI on Windows."""
    return not (os.name == "nt" and (cluster.client == "confluent" or find_spec("gssapi") is None))
