"""What all studies share: arms, rates and seeds, a file for each run, results, statistics, tables and pictures."""
