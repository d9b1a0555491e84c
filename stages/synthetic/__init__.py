"""Questions and answers written by a language model about chunks: asked for, filtered, reviewed."""
