"""Who is notified of what: alert rules, the outbox, mail and other channels, the daily report."""

__all__: list[str] = []
