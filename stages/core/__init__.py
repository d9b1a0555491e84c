"""What every stage needs: configuration, places, files, counts, seeds. Nothing here imports torch."""
