"""The guest's network: a process for each machine, between QEMU and the host's own network."""
