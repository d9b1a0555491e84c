"""Training through axolotl, which lives in a virtual environment of its own: a second way to the same adapter."""
