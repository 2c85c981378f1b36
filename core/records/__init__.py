"""What happened: ledger, spool, metrics, accounts, audit."""

__all__: list[str] = []
