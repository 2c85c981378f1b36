"""Excel and CSV files: written, read, and compared with messages."""

__all__: list[str] = []
