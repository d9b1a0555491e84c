"""Six benchmarks of any OpenAI-compatible server, measured over HTTP: what it costs, and what its answers are worth."""
