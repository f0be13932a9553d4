"""Image bytes and texts to vectors, and vectors to shards. The room of torch."""
