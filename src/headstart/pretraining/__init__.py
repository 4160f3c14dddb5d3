"""Making upstreams: what is learnt before the task at hand."""
