"""The functional core: inner loops, meta-gradients, outer steps. No model, no files."""
