"""Looking after an installation: check, doctor, health, demo, the operating system's service, logs, edits of files."""

__all__: list[str] = []
