"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a setting or a file. Its text is one line that names it and what is right."""
