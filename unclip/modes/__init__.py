"""One file a mode: where its embeddings, initial noise and known pixels come from."""
