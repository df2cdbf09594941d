"""The data set that comes with the package; see README.md in this folder."""
