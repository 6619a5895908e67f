"""Running a sweep: its start and end, the driver, the thread that writes the store, and the replay of a journal."""
