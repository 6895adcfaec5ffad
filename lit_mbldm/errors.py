"""The one exception that the command line prints without a traceback."""


class InputError(ValueError):
    """A mistake in what the user gave: says what was expected, what came and what to do."""
