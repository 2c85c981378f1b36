"""Kafka clients, one file each, behind `core.model.Publisher`."""
