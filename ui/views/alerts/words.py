"""Names of rules, their subjects and severities in the language of the session."""

from __future__ import annotations

from core.notify.rules import OF_JOBS
from ui.data.filters import job_name
from ui.language import t

__all__ = ["rule_title", "severity_word", "subject_name"]


def rule_title(rule: str) -> str:
    """Returns the name of a rule."""
    return {
        "success_rate": t("Success rate too low"),
        "latency_p99": t("Latency p99 too high"),
        "producer_disconnected": t("Cluster does not answer"),
        "error_rate": t("Error rate too high"),
        "runner_memory": t("Memory of the runner"),
        "job_late": t("No success in time"),
        "spool_damaged": t("Damaged segment of the spool"),
        "job_failed": t("Job failed"),
    }.get(rule, rule)


def severity_word(severity: str) -> str:
    """Returns the name of a severity."""
    return t("critical") if severity == "critical" else t("warning")


def subject_name(rule: str, subject: str) -> str:
    """Returns what a rule is about: the name of a job, where it is about jobs."""
    return job_name(subject) if rule in OF_JOBS else subject
