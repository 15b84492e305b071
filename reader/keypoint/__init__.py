"""A user's own data: pickles of pyskl and mmaction2, folders with an index.csv."""
