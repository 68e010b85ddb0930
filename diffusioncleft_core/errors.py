"""The one exception that is meant for a person."""


class UserError(Exception):
    """A mistake or a circumstance the user can change: one sentence with what, where and what to do.

    The command line prints it as one line without a traceback and exits 2; a node shows it as its message.
    """
