"""The command line: one file a command; where core and trainer meet."""
