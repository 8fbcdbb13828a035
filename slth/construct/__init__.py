"""Construction: which weights of a random source to keep so that it computes a trained target."""
