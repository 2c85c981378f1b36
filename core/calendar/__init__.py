"""Times: cron, intervals, templates such as `{date-1}`."""

__all__: list[str] = []
