"""Errors that a person can act on: they are printed as one message, without a traceback."""


class GroundtuneError(Exception):
    """Something the user can mend. The message names the file, line or key, and the way out."""


class ConfigError(GroundtuneError):
    """A configuration key is unknown, missing, or of the wrong type or value."""


class DataError(GroundtuneError):
    """The data cannot be used: missing, empty, broken, too much of it rejected, or leaking."""
