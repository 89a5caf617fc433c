"""The verbs, one file each; the server and the command line call the same ones."""
