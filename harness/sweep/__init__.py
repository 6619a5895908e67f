"""The driver of a sweep: it runs what is to do, and brings each event to journal, store and terminal."""
