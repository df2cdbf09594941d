"""Sets of others: their numbers as published, as recorded in the files, and as ours."""
