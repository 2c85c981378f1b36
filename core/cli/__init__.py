"""The command line: `python -m core COMMAND`."""

__all__: list[str] = []
