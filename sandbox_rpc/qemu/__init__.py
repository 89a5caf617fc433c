"""How a virtual machine is described, started and talked to."""
