"""Gets the token or the Kerberos ticket of a login before a client connects: its failure is then one error with its cause."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from core.kafka.kerberos import KerberosLogin, require_ticket
from core.kafka.oauth import TokenSource, extensions_of, token_source
from core.kafka.probe import addresses
from core.kafka.security import uses_login
from core.model.connection import Cluster

__all__ = ["login_config", "require_login"]


def login_config(cluster: Cluster, tokens: Callable[[TokenSource, dict[str, str]], Any]) -> dict[str, Any]:
    """Returns the settings of a cluster's login, by the names that aiokafka has from kafka-python-ng.

    They contain the password: never log them.

    Args:
        cluster: The cluster.
        tokens: Makes the client's own provider of tokens.
    """
    match cluster.sasl_mechanism:
        case "GSSAPI":
            return {
                "sasl_kerberos_service_name": cluster.sasl_kerberos_service_name,
                "sasl_plain_username": KerberosLogin(cluster),
            }
        case "OAUTHBEARER":
            return {"sasl_oauth_token_provider": tokens(token_source(cluster), extensions_of(cluster))}
    password = cluster.sasl_password.reveal() if cluster.sasl_password else ""
    return {"sasl_plain_username": cluster.sasl_username, "sasl_plain_password": password}


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
