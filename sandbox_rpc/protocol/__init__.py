"""The words that clients, servers and supervisors share; imports nothing of the package."""
