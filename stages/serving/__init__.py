"""Answering people: retrieval, prompt and model put together."""
