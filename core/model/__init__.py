"""The types that every package shares."""

__all__: list[str] = []
