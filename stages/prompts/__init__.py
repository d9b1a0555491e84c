"""The one prompt renderer: training data, evaluation, chat, proxy and export all go through it."""
