"""The user's files: settings, connections, jobs, secrets."""

__all__: list[str] = []
