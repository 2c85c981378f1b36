"""A real broker with the logins that companies use: Kerberos, and tokens of an OpenID provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.rigs.kafka import KafkaRig
from tests.rigs.token_issuer import AUDIENCE, TokenIssuer


class CompanyKafka(KafkaRig):
    """One broker; `gssapi` and `oauth` are listeners with these logins.

    Args:
        realm_config: krb5.conf for the broker.
        keytab: Of `kafka/localhost`.
        issuer: Whose tokens it accepts; it must run.
    """

    listeners: ClassVar[Mapping[str, str]] = {
        "plaintext": "PLAINTEXT",
        "gssapi": "SASL_PLAINTEXT",
        "oauth": "SASL_PLAINTEXT",
        "mtls": "SSL",
    }
    host: ClassVar[str] = "localhost"
    gssapi: str
    oauth: str

    def __init__(self, realm_config: Path, keytab: Path, issuer: TokenIssuer) -> None:
        super().__init__()
        self._java += [
            f"-Djava.security.krb5.conf={realm_config}",
            f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={issuer.jwks_url}",
        ]
        self._keytab, self._issuer = keytab, issuer

    def _sasl(self) -> dict[str, str]:
        common = "org.apache.kafka.common.security.oauthbearer"
        kerberos, tokens = "listener.name.gssapi", "listener.name.oauth"
        return {
            f"{kerberos}.sasl.enabled.mechanisms": "GSSAPI",
            f"{kerberos}.sasl.kerberos.service.name": "kafka",
            f"{kerberos}.gssapi.sasl.jaas.config": "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true"
            f' storeKey=true keyTab="{self._keytab}" principal="kafka/localhost@PSTT.TEST";',
            f"{tokens}.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{tokens}.oauthbearer.sasl.jaas.config": f"{common}.OAuthBearerLoginModule required;",
            f"{tokens}.oauthbearer.sasl.server.callback.handler.class": f"{common}.OAuthBearerValidatorCallbackHandler",
            # Kafka 4.1 would check the form of a token only, not its signature.
            "sasl.oauthbearer.jwt.validator.class": f"{common}.BrokerJwtValidator",
            "sasl.oauthbearer.jwks.endpoint.url": self._issuer.jwks_url,
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "sasl.oauthbearer.expected.issuer": self._issuer.url,
            "super.users": "User:ANONYMOUS;User:pstt;User:pstt-sender",
        }
