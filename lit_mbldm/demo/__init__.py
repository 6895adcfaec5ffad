"""The page in the browser on which people use models."""
