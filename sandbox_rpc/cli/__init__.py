"""The command line: one file for each command, on the same verbs as the server."""
