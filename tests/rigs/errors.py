"""What a rig says when it has no server to offer."""


class RigMissing(Exception):
    """This machine cannot offer the service; its tests are skipped, or fail where PSTT_REQUIRE names it.

    Args:
        service: kafka, registry, postgres, sqlserver or oracle.
        reason: What is missing, for the reader of the skipped or failed test.
    """

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(reason)
        self.service = service


class ServerFailed(Exception):
    """The server is installed and did not start; its text has the last lines of its log."""
