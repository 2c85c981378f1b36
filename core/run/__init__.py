"""One run, from its plan to its verdict."""

__all__: list[str] = []
