"""The version of PSTT Kafka, also in pyproject.toml."""

__all__ = ["__version__"]

__version__ = "1.0.4"
