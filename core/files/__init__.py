"""Excel and CSV files: writes them, reads them, and compares them with messages."""

__all__: list[str] = []
