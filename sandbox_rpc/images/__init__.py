"""Images: how one is made, kept and given to a virtual machine."""
