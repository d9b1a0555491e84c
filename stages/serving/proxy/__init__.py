"""`groundtune serve`: an OpenAI-compatible endpoint that puts the documents into the prompt, as training did."""
