"""Running language models: in this process with dynamic batching and a KV cache, or on HTTP servers."""
