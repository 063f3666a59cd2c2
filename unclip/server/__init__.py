"""The server: the OpenAI Images API over HTTP, with micro-batching across requests, and the canvas."""
