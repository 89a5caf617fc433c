"""The protocol's files against real tools, and recorded sessions against the real server."""
