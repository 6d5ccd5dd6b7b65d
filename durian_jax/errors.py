"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""


class InputError(ValueError):
    """What a user gave cannot be used.

    The message says what was expected, what was found and what to do next. The command line prints
    it without a traceback and exits with status 2; it is raised before any expensive work starts.
    """
