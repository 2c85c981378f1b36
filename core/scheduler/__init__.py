"""Which scheduled runs are due, and the runner that starts them."""

__all__: list[str] = []
