"""CLIP image embeddings: algebra, principal components, files."""
