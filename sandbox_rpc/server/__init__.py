"""The service on stdio: the wire, and nothing else. The only room that imports pygls."""
