"""Open a project folder inside a disposable, strongly isolated virtual machine."""

__version__ = "0.1.0"
