"""What the guest is told, and the program in it that listens."""
