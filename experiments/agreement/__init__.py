"""Agreement: which networks trained on real images do those on distilled sets predict like?"""
