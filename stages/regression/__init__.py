"""Numbers that a language model writes: pairs of texts, their values, splits and answers (system B)."""
