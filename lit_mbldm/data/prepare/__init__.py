"""Images to shards, shards to codes."""
