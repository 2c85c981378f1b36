"""What aiokafka's errors mean: each is in one family, which decides what the user does next."""

from __future__ import annotations

import asyncio

import aiokafka.errors as client_errors

from core.kafka.diagnosis import BrokerObjection, Family

__all__ = ["FAMILIES", "SAID", "family_of", "is_surely_not_stored", "words_of"]

_NAMES: dict[Family, str] = {
    "late": "KafkaTimeoutError RequestTimedOutError",
    "away": "NoBrokersAvailable KafkaConnectionError KafkaUnavailableError BrokerNotAvailableError MetadataEmptyBrokerList"
    " NodeNotReadyError",
    "busy": "KafkaError BrokerResponseError NoError UnknownError KafkaProtocolError CorrelationIdError"
    " TooManyInFlightRequests StaleMetadata QuotaViolationError CorruptRecordException LeaderNotAvailableError"
    " NotLeaderForPartitionError ReplicaNotAvailableError StaleControllerEpochError StaleLeaderEpochCodeError"
    " GroupLoadInProgressError GroupCoordinatorNotAvailableError NotCoordinatorForGroupError NotEnoughReplicasError"
    " NotEnoughReplicasAfterAppendError NotControllerError ConcurrentTransactions KafkaStorageError LogDirNotFound"
    " ReassignmentInProgress OperationNotAttempted OutOfOrderSequenceNumber UnknownProducerId InvalidProducerIdMapping"
    " DuplicateSequenceNumber",
    "dropped": "Cancelled IllegalStateError ProducerClosed",
    "login": "AuthenticationFailedError AuthenticationMethodNotSupported UnsupportedSaslMechanismError IllegalSaslStateError"
    " SecurityDisabled SaslAuthenticationFailed DelegationTokenAuthDisabled DelegationTokenNotFound"
    " DelegationTokenOwnerMismatch DelegationTokenRequestNotAllowed DelegationTokenAuthorizationFailed"
    " DelegationTokenExpired InvalidPrincipalType",
    "denied": "TopicAuthorizationFailedError",
    "denied_cluster": "ClusterAuthorizationFailedError GroupAuthorizationFailedError TransactionalIdAuthorizationFailed",
    "topic": "UnknownTopicOrPartitionError",
    "name": "InvalidTopicError",
    "large": "MessageSizeTooLargeError RecordListTooLargeError RecordTooLargeError",
    "fenced": "ProducerFenced InvalidProducerEpoch TransactionCoordinatorFenced",
    "setting": "IllegalArgumentError KafkaConfigurationError UnsupportedCodecError UnrecognizedBrokerVersion"
    " IncompatibleBrokerVersion InvalidRequiredAcksError UnsupportedVersionError UnsupportedForMessageFormatError"
    " InvalidConfigurationError InvalidPartitionsError InvalidReplicationFactorError InvalidReplicationAssignmentError"
    " InvalidTransactionTimeout ListenerNotFound",
    "refused": "InvalidTimestampError InvalidRequestError PolicyViolationError TopicAlreadyExistsError",
    "void": "InvalidTxnState IllegalOperation",
    # Only consumers and groups receive these.
    "foreign": "OffsetOutOfRangeError InvalidFetchRequestError OffsetMetadataTooLargeError CommitFailedError"
    " IllegalGenerationError InconsistentGroupProtocolError InvalidGroupIdError UnknownMemberIdError"
    " InvalidSessionTimeoutError RebalanceInProgressError InvalidCommitOffsetSizeError NonEmptyGroup GroupIdNotFound"
    " FetchSessionIdNotFound InvalidFetchSessionEpoch MemberIdRequired ConsumerStoppedError NoOffsetForPartitionError",
}

FAMILIES: dict[Family, frozenset[type[Exception]]] = {
    family: frozenset(getattr(client_errors, name) for name in names.split()) for family, names in _NAMES.items()
}
"""What the user does next → the client's errors. A test checks that every error class of the client is here."""

_FAMILY_OF = {error: family for family, errors in FAMILIES.items() for error in errors}


class InvalidRecordError(client_errors.BrokerResponseError):  # type: ignore[misc]
    """The broker does not accept a record. Source: kafka.apache.org/protocol, error code 87."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker failed to validate a record."


# aiokafka 0.14 does not know this error code. Remove with the next version that does.
client_errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

SAID: dict[type[Exception], BrokerObjection] = {
    client_errors.kafka_errors[InvalidRecordError.errno]: "record",
    client_errors.CorruptRecordException: "record",  # brokers before 2.4: no key on a compacted topic
    client_errors.InvalidTimestampError: "time",
    client_errors.PolicyViolationError: "policy",
}
"""Errors of a record batch that are about one of its records → what the broker objects to."""

_NOT_STORED: frozenset[Family] = frozenset({"denied", "denied_cluster", "topic", "name", "large", "refused"})


def family_of(error: Exception) -> Family:
    """Returns what the user does after this error; one that the client does not know is tried again."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "late"
    if isinstance(error, OSError):
        return "away"
    return _FAMILY_OF.get(type(error)) or "busy"


def is_surely_not_stored(error: Exception) -> bool:
    """Returns True if the broker has stored nothing of a record batch that it answered with this error."""
    return family_of(error) in _NOT_STORED or type(error) in SAID


def words_of(error: Exception) -> str:
    """Returns the client's own text."""
    if type(error) is client_errors.UnknownError:
        return "the broker reports an error that aiokafka does not know; its own log has the cause"
    return str(error) or type(error).__name__
