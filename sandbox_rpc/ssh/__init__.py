"""How a running guest is reached by OpenSSH."""
