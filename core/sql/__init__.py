"""The SQL file: tokens, parameters, the read-only guard."""

__all__: list[str] = []
