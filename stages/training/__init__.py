"""LoRA training: exact resume, curves, merging, and the pre-training of the embedded base."""
