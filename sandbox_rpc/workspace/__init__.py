"""The shared folder as the host has to look at it: what in it makes programs here run something."""
