"""The seeded simulator, for zmesh's own tests and for yours."""
