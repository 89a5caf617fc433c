"""What the user may choose: one table of settings, and the files and flags that set them.

size      how much, as people write it: 2G
setting   what a row of the table is: kind, range, and who may set it
settings  the table, and the value that holds one answer for each row
document  TOML text → rows and what was written for them, with lines
folder    the workspace's sandbox.toml, which the guest can write
trust     which content of such a file the user has accepted
sources   default < config.toml < sandbox.toml < flags
flags     the table as command-line flags
"""
