"""The process that owns one virtual machine, and how others talk to it."""
