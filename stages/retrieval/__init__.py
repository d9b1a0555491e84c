"""Embedding, stores and search: one interface over FAISS, Chroma and full text."""
