"""From a YAML file to runs. Everything is checked and built before the first run starts."""
