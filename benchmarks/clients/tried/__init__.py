"""What is done with each client: a module's `CASES`, each called with an arm and an empty folder."""
