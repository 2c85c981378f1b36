"""From a row to its key, its JSON and its id."""

__all__: list[str] = []
