"""Images from a registry: the real one of Debian, and a faulty server in front of it."""
