"""The one way to write a file, to read one of ours, and to read a stranger's archive."""
