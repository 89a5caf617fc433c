"""The only rooms that touch the machine: paths, locks, processes, sockets."""
