"""The command line: what a user types, what is asked of a service or a store, and how it is shown."""
