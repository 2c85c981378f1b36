"""PSTT Kafka: SQL files to JSON messages on Kafka, with proof that every row arrived."""

__version__ = "1.0.4"
