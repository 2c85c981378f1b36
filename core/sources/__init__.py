"""Databases, one file each, behind `core.model.Source`."""
