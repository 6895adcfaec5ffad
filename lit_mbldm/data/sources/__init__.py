"""Images where they lie: files, archives, LSUN."""
