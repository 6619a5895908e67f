"""Where runs are computed: local processes or a Ray cluster; order, retries and limits."""
