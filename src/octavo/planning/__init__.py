"""Planning: what a model takes and costs, told before it is loaded and without running it."""
