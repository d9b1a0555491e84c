"""groundtune: raw material in, grounded fine-tuned model and honest report out.

Modules are stages (verbs) and run as ``python -m stages.<name>``; packages hold what stages share (nouns).
"""
