"""The data set included in the package; see README.md in this folder."""
