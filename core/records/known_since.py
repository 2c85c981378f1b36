"""From when on single sends are known: earlier ones are rolled up, see `core.records.retention`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

__all__ = ["KnownSince"]


@dataclass(frozen=True, slots=True)
class KnownSince:
    """The first day from which single sends are known; earlier ones are only counted by day."""

    days: Mapping[str | None, date] = field(default_factory=dict)
    """Slug of a job with a retention of its own → day; None: all other jobs. Empty: every send is known."""

    def of(self, job: str | None = None) -> date | None:
        """Returns the day for a job, or for the jobs without a retention of their own; None: every send is known."""
        day = self.days.get(job) or self.days.get(None)
        return None if day == date.min else day

    @property
    def of_jobs(self) -> dict[str, date]:
        """The days of the jobs with a retention of their own, by slug."""
        return {job: day for job, day in self.days.items() if job is not None and day != date.min}

    @property
    def whole_jobs(self) -> frozenset[str]:
        """The jobs of which every send is known, unlike of others."""
        return frozenset(job for job, day in self.days.items() if job is not None and day == date.min)

    @property
    def text(self) -> str:
        """The sentence for people; empty where every send is known."""
        if not self.days:
            return ""
        own = [f"of job {job} since {day}" for job, day in sorted(self.of_jobs.items())]
        own += [f"of job {job} all of them" for job in sorted(self.whole_jobs)]
        common = self.days.get(None)
        return "single sends are known " + ", ".join([f"since {common}"] * (common is not None) + own)
