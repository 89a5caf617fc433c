"""The service as clients meet it: the real process, real pipes, no virtual machine."""
