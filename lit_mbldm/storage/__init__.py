"""Files and URLs: opened, downloaded, checked, and written whole or not at all."""
