"""A writer's samples: notes taken out, cut into passages, measured, and turned into training examples."""
