"""Models that other programs can load: merged weights, GGUF files, adapters, and the proof that they are the same."""
