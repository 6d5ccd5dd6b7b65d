"""Exceptions whose message is for the user, as opposed to those that mean "the program is wrong"."""


class InputError(ValueError):
    """What a user gave cannot be used.

    The message says what was expected, what was found and what to do next. The command line prints
    it without a traceback and exits with status 2; it is raised before any expensive work starts.
    """

    status = 2


class ClusterError(InputError):
    """The processes of a run did not find each other, or lost one. What starts them again may do so after status 1."""

    status = 1
