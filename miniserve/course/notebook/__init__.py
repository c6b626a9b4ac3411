"""From one source to two notebooks: reading, building, executing, comparing, updating."""
