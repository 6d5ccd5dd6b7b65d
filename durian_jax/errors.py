"""Exceptions with a message for the user; any other exception means a bug in the program."""


class InputError(ValueError):
    """Input from the user that cannot be used.

    The message says what was expected, what was found and what to do next. The command line prints it
    without a traceback and exits with status 2. Code raises it before any expensive work starts.
    """

    status = 2


class ClusterError(InputError):
    """Processes of a run that did not find each other, or lost one; a launcher may restart the run after status 1."""

    status = 1


class DiskFull(InputError):
    """A file that could not be written because its disk is full."""
