"""Raw recordings -> clips: finding files, parsing them, selecting persons, normalising."""
