"""Programs to compare with: the least that could do the same work. Each runs in a process of its own."""
