"""Documents as people keep them (PDF, DOCX, HTML, ...) into blocks, token-exact chunks and the knowledge base."""
