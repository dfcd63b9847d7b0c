"""The demonstration: real processes find each other, work, lose one, and lose nothing."""
