"""Why a rig cannot be had on this machine."""


class RigMissing(Exception):
    """What is missing, for the person who reads a skipped or failed test."""
