"""The serial console: one guest port, any number of readers and writers."""
