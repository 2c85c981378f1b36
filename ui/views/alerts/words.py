"""Names of rules and severities in the language of the session."""

from __future__ import annotations

from ui.language import t

__all__ = ["rule_title", "severity_word"]


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
