"""What a branch changes, as the Markdown of a pull request: parameters, metrics, data, stages, cost, figures."""
