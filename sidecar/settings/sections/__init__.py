"""The sections of the settings, grouped by the part of the program that they are about."""
