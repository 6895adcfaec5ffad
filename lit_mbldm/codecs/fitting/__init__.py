"""Codecs are fitted here."""
