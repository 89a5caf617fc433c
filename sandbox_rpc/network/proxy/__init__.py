"""The allowlist's proxy: a process for each machine, behind one address of the guest's network."""
