"""Labels of experts on distilled, random and herded images: which gain."""
