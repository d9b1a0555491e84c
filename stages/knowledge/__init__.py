"""Raw material and what becomes of it: records, cleaning, near-duplicates, splits, the invented demo world."""
